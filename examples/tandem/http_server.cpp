#include "http_server.hpp"

#include <arpa/inet.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <cctype>
#include <chrono>
#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>
#include <utility>

#include <microhttpd.h>

#include <tandem/core/error.hpp>

namespace program {

namespace td = tandem;

namespace {

using Clock = std::chrono::steady_clock;

/// A request that is coming in.
struct Incoming {
    HttpRequest request;
    std::size_t counted = 0;  ///< bytes of its body, among those of all
    unsigned refused = 0;     ///< the status of what is refused before it is all there
};

std::string lowered(std::string text) {
    std::ranges::transform(text, text.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return text;
}

}  // namespace

std::string HttpRequest::parameter(const std::string& name) const {
    const auto found = parameters.find(name);
    return found == parameters.end() ? std::string() : found->second;
}

std::string HttpRequest::header(const std::string& name) const {
    const auto found = headers.find(name);
    return found == headers.end() ? std::string() : found->second;
}

struct HttpServer::Implementation {
    Handler handler;
    HttpLimits limits;
    MHD_Daemon* daemon = nullptr;
    std::atomic<std::size_t> body_bytes = 0;

    /// Connections and when they must have had their answer: a client that sends or reads byte by byte is cut off.
    std::mutex mutex;
    std::condition_variable stopping;
    bool stops = false;
    std::map<MHD_Connection*, Clock::time_point> deadlines;
    std::thread reaper;

    void reap() {
        std::unique_lock lock(mutex);
        while (!stops) {
            stopping.wait_for(lock, std::chrono::milliseconds(500));
            for (auto& [connection, deadline] : deadlines) {
                if (Clock::now() < deadline) continue;
                if (const auto* const info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD))
                    ::shutdown(info->connect_fd, SHUT_RDWR);
                deadline = Clock::time_point::max();  // once; libmicrohttpd does the rest
            }
        }
    }
    void begin_again(MHD_Connection* connection, std::chrono::seconds time) {
        const std::scoped_lock lock(mutex);
        const auto found = deadlines.find(connection);
        if (found != deadlines.end()) found->second = Clock::now() + time;
    }

    static void on_connection(void* self, MHD_Connection* connection, void**, MHD_ConnectionNotificationCode code) {
        auto& server = *static_cast<Implementation*>(self);
        const std::scoped_lock lock(server.mutex);
        if (code == MHD_CONNECTION_NOTIFY_STARTED) {
            server.deadlines[connection] = Clock::now() + std::chrono::seconds(server.limits.seconds);
        } else {
            server.deadlines.erase(connection);
        }
    }
    static void on_completed(void* self, MHD_Connection* connection, void** state, MHD_RequestTerminationCode) {
        auto& server = *static_cast<Implementation*>(self);
        const std::unique_ptr<Incoming> incoming(static_cast<Incoming*>(*state));
        *state = nullptr;
        if (incoming) server.body_bytes -= incoming->counted;
        server.begin_again(connection, std::chrono::seconds(server.limits.seconds));
    }

    static MHD_Result send(MHD_Connection* connection, const HttpResponse& response) {
        MHD_Response* const answer = MHD_create_response_from_buffer(
            response.body.size(), const_cast<char*>(response.body.data()), MHD_RESPMEM_MUST_COPY);
        if (answer == nullptr) return MHD_NO;
        MHD_add_response_header(answer, MHD_HTTP_HEADER_CONTENT_TYPE, response.type.c_str());
        for (const auto& [name, value] : response.headers) MHD_add_response_header(answer, name.c_str(), value.c_str());
        const MHD_Result result = MHD_queue_response(connection, response.status, answer);
        MHD_destroy_response(answer);
        return result;
    }

    /// The request's head, and whether it is refused by it.
    static Incoming head(const Implementation& server, MHD_Connection* connection, const char* url, const char* method) {
        Incoming incoming;
        incoming.request.method = method;
        incoming.request.path = url;
        MHD_get_connection_values(
            connection, MHD_HEADER_KIND,
            [](void* to, MHD_ValueKind, const char* name, const char* value) {
                (*static_cast<std::map<std::string, std::string>*>(to))[lowered(name)] = value == nullptr ? "" : value;
                return MHD_YES;
            },
            &incoming.request.headers);
        std::size_t length = incoming.request.path.size();
        MHD_get_connection_values_n(
            connection, MHD_GET_ARGUMENT_KIND,
            [](void* to, MHD_ValueKind, const char* name, std::size_t name_size, const char* value, std::size_t value_size) {
                (*static_cast<std::map<std::string, std::string>*>(to))[{name, name_size}] =
                    value == nullptr ? std::string() : std::string(value, value_size);
                return MHD_YES;
            },
            &incoming.request.parameters);
        for (const auto& [name, value] : incoming.request.parameters) length += name.size() + value.size();
        if (length > server.limits.url) incoming.refused = MHD_HTTP_URI_TOO_LONG;
        const std::string size = incoming.request.header("content-length");
        if (size.size() > 12 || std::strtoull(size.c_str(), nullptr, 10) > server.limits.body)
            incoming.refused = MHD_HTTP_CONTENT_TOO_LARGE;
        return incoming;
    }

    /// A zero would end the text that libmicrohttpd gives, and hide what stands behind it.
    static std::size_t unescape(void*, MHD_Connection*, char* text) {
        return std::strstr(text, "%00") != nullptr ? std::strlen(text) : MHD_http_unescape(text);
    }

    static MHD_Result on_request(void* self, MHD_Connection* connection, const char* url, const char* method, const char*,
                                 const char* data, std::size_t* size, void** state) {
        auto& server = *static_cast<Implementation*>(self);
        try {
            if (*state == nullptr) {
                server.begin_again(connection, std::chrono::seconds(server.limits.seconds));
                *state = new Incoming(head(server, connection, url, method));
                auto& incoming = *static_cast<Incoming*>(*state);
                // Before its body: what is refused is not read.
                if (incoming.refused != 0) return send(connection, {incoming.refused, "text/plain", "refused\n"});
                return MHD_YES;
            }
            auto& incoming = *static_cast<Incoming*>(*state);
            if (*size > 0) {
                if (incoming.refused == 0) {
                    const std::size_t all = server.body_bytes += *size;
                    incoming.counted += *size;
                    if (incoming.counted > server.limits.body) incoming.refused = MHD_HTTP_CONTENT_TOO_LARGE;
                    else if (all > server.limits.bodies) incoming.refused = MHD_HTTP_SERVICE_UNAVAILABLE;
                    else incoming.request.body.append(data, *size);
                }
                *size = 0;
                return MHD_YES;
            }
            if (incoming.refused != 0) return send(connection, {incoming.refused, "text/plain", "refused\n"});
            // Our own time is not the client's.
            server.begin_again(connection, std::chrono::hours(1));
            const HttpResponse response = server.handler(incoming.request);
            server.begin_again(connection, std::chrono::seconds(server.limits.seconds));
            return send(connection, response);
        } catch (const std::exception&) {
            return send(connection, {MHD_HTTP_INTERNAL_SERVER_ERROR, "text/plain", "failed\n"});
        }
    }
};

HttpServer::HttpServer(const std::string& address, std::uint16_t port, Handler handler, const HttpLimits& limits)
    : implementation_(std::make_unique<Implementation>()) {
    implementation_->handler = std::move(handler);
    implementation_->limits = limits;
    sockaddr_in ip4{};
    sockaddr_in6 ip6{};
    const sockaddr* where = nullptr;
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD;
    if (::inet_pton(AF_INET, address.c_str(), &ip4.sin_addr) == 1) {
        ip4.sin_family = AF_INET;
        ip4.sin_port = htons(port);
        where = reinterpret_cast<const sockaddr*>(&ip4);
    } else if (::inet_pton(AF_INET6, address.c_str(), &ip6.sin6_addr) == 1) {
        ip6.sin6_family = AF_INET6;
        ip6.sin6_port = htons(port);
        where = reinterpret_cast<const sockaddr*>(&ip6);
        flags |= MHD_USE_IPv6;
    } else {
        throw td::Error("--listen", "an address of IPv4 or IPv6", address);
    }
    implementation_->daemon = MHD_start_daemon(
        flags, port, nullptr, nullptr, &Implementation::on_request, implementation_.get(), MHD_OPTION_SOCK_ADDR, where,
        MHD_OPTION_CONNECTION_LIMIT, limits.connections, MHD_OPTION_CONNECTION_TIMEOUT, limits.seconds,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, std::size_t{64} << 10, MHD_OPTION_THREAD_POOL_SIZE, limits.threads,
        MHD_OPTION_UNESCAPE_CALLBACK, &Implementation::unescape, nullptr, MHD_OPTION_NOTIFY_COMPLETED, &Implementation::on_completed, implementation_.get(), MHD_OPTION_NOTIFY_CONNECTION,
        &Implementation::on_connection, implementation_.get(), MHD_OPTION_END);
    if (implementation_->daemon == nullptr)
        throw td::Error(address + ":" + std::to_string(port), "cannot listen there: " + std::string(std::strerror(errno)));
    implementation_->reaper = std::thread([this] { implementation_->reap(); });
}

HttpServer::~HttpServer() {
    {
        const std::scoped_lock lock(implementation_->mutex);
        implementation_->stops = true;
    }
    implementation_->stopping.notify_all();
    implementation_->reaper.join();
    MHD_stop_daemon(implementation_->daemon);
}

std::uint16_t HttpServer::port() const {
    const auto* const info = MHD_get_daemon_info(implementation_->daemon, MHD_DAEMON_INFO_BIND_PORT);
    return info == nullptr ? std::uint16_t{0} : info->port;
}

}  // namespace program
