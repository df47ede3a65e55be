// HTTP for a page of one's own, by libmicrohttpd, with a bound on everything that a client can ask for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace program {

struct HttpRequest {
    std::string method, path;
    std::map<std::string, std::string> parameters;  ///< of the query string, decoded
    std::map<std::string, std::string> headers;     ///< by name in small letters
    std::string body;

    std::string parameter(const std::string& name) const;
    std::string header(const std::string& name) const;
};

struct HttpResponse {
    unsigned status = 200;
    std::string type = "application/json";
    std::string body;
    std::map<std::string, std::string> headers{};
};

struct HttpLimits {
    unsigned connections = 256;
    unsigned threads = 8;
    std::size_t body = std::size_t{24} << 20;    ///< bytes of a request
    std::size_t bodies = std::size_t{96} << 20;  ///< bytes of all requests at once
    std::size_t url = 8192;
    unsigned seconds = 20;  ///< from a connection's beginning, or its last answer, to the next answer sent
};

/// Serves until it is destroyed. The handler is called by several threads at once; what it throws becomes status 500.
class HttpServer {
public:
    using Handler = std::function<HttpResponse(const HttpRequest&)>;

    /// Listens. `address` is one of IPv4 or IPv6; port 0 is any that is free. Throws Error if that is not possible.
    HttpServer(const std::string& address, std::uint16_t port, Handler handler, const HttpLimits& limits = {});
    HttpServer(const HttpServer&) = delete;
    HttpServer& operator=(const HttpServer&) = delete;
    ~HttpServer();

    std::uint16_t port() const;

    struct Implementation;

private:
    std::unique_ptr<Implementation> implementation_;
};

}  // namespace program
