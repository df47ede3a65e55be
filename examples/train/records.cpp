#include "records.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include <tandem/core/error.hpp>
#include <tandem/core/file.hpp>
#include <tandem/images/transform.hpp>

#include "../quickstart/report_style.hpp"
#include "../quickstart/report_svg.hpp"

namespace training {

namespace fs = std::filesystem;
namespace td = tandem;

namespace {

/// CRC-32C (Castagnoli), and as TensorFlow masks it (tensorflow/core/lib/hash/crc32c.h).
std::uint32_t masked_crc(std::string_view bytes) {
    std::uint32_t crc = ~0U;
    for (const char byte : bytes) {
        crc ^= static_cast<unsigned char>(byte);
        for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (0x82F63B78U & (0U - (crc & 1U)));
    }
    return std::rotr(~crc, 15) + 0xA282EAD8U;
}

template <class Number>
std::string little(Number number) {
    std::string bytes(sizeof(number), '\0');
    std::memcpy(bytes.data(), &number, sizeof(number));
    if constexpr (std::endian::native == std::endian::big) std::ranges::reverse(bytes);
    return bytes;
}

std::string varint(std::uint64_t value) {
    std::string bytes;
    for (; value >= 128; value >>= 7) bytes += static_cast<char>(128 + value % 128);
    return bytes + static_cast<char>(value);
}

// Fields of protocol buffers: event.proto and summary.proto of TensorFlow.
std::string number_field(unsigned field, std::uint64_t value) { return varint(field << 3) + varint(value); }
std::string double_field(unsigned field, double value) { return varint(field << 3 | 1) + little(value); }
std::string float_field(unsigned field, float value) { return varint(field << 3 | 5) + little(value); }
std::string bytes_field(unsigned field, const std::string& bytes) { return varint(field << 3 | 2) + varint(bytes.size()) + bytes; }

double seconds_now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

std::string framed_record(const std::string& bytes) {
    const std::string length = little(static_cast<std::uint64_t>(bytes.size()));
    return length + little(masked_crc(length)) + bytes + little(masked_crc(bytes));
}

Records::Records(fs::path folder, std::vector<std::pair<std::string, std::string>> facts) : folder_(std::move(folder)), facts_(std::move(facts)) {
    const fs::path log = folder_ / "log.jsonl";
    std::ifstream stream(log, std::ios::binary);
    std::string text;
    for (std::size_t number = 1; std::getline(stream, text); ++number) {
        const auto line = nlohmann::ordered_json::parse(text, nullptr, false);
        // The last line may have been cut by a kill.
        is_of_before_ = true;
        if (line.is_discarded() && stream.peek() == std::ifstream::traits_type::eof()) break;
        if (!line.is_object() || !line.contains("step") || !line["step"].is_number_unsigned())
            throw td::Error(log.string() + " line " + std::to_string(number), "an object with a step", "something else");
        Entry entry{line["step"].get<std::size_t>(), {}};
        for (const auto& [tag, value] : line.items()) {
            if (tag != "step") entry.scalars.emplace_back(tag, value.is_number() ? value.get<double>() : std::nan(""));
        }
        entries_.push_back(std::move(entry));
    }
    std::array<char, 256> host{};
    ::gethostname(host.data(), host.size() - 1);
    const fs::path events = folder_ / ("events.out.tfevents." + std::to_string(static_cast<long long>(seconds_now())) + "." + host.data() + "." + std::to_string(::getpid()));
    events_ = std::fopen(events.c_str(), "wb");
    if (events_ == nullptr) throw td::Error(events.string(), "cannot be written");
    const std::string header = framed_record(double_field(1, seconds_now()) + bytes_field(3, "brain.Event:2"));
    std::fwrite(header.data(), 1, header.size(), events_);
}

Records::~Records() {
    if (events_ != nullptr) std::fclose(events_);
}

std::string Records::line(const Entry& entry) const {
    nlohmann::ordered_json json{{"step", entry.step}};
    for (const auto& [tag, value] : entry.scalars) json[tag] = value;
    return json.dump() + "\n";
}

void Records::add(std::size_t step, Scalars scalars) {
    const fs::path log = folder_ / "log.jsonl";
    const bool overlaps = std::exchange(is_of_before_, false);
    if (overlaps) std::erase_if(entries_, [&](const Entry& entry) { return entry.step >= step; });
    entries_.push_back({step, std::move(scalars)});
    if (overlaps) {
        std::string all;
        for (const Entry& entry : entries_) all += line(entry);
        td::write_file_atomically(log, all);
    } else {
        std::ofstream stream(log, std::ios::binary | std::ios::app);
        stream << line(entries_.back()) << std::flush;
        if (!stream) throw td::Error(log.string(), "cannot be written");
    }
    std::string values;
    for (const auto& [tag, value] : entries_.back().scalars)
        values += bytes_field(1, bytes_field(1, tag) + float_field(2, static_cast<float>(value)));
    const std::string record = framed_record(double_field(1, seconds_now()) + number_field(2, step) + bytes_field(5, values));
    if (std::fwrite(record.data(), 1, record.size(), events_) != record.size() || std::fflush(events_) != 0)
        throw td::Error((folder_ / "events.out.tfevents").string(), "cannot be written");
}

std::string Records::chart(const std::string& tag) const {
    std::vector<std::pair<double, double>> points;
    for (const Entry& entry : entries_) {
        for (const auto& [name, value] : entry.scalars) {
            if (name == tag && std::isfinite(value)) points.emplace_back(static_cast<double>(entry.step), value);
        }
    }
    if (points.empty()) return {};
    // As many as there are pixels tell it.
    if (const std::size_t every = points.size() / 600 + 1; every > 1) {
        std::vector<std::pair<double, double>> some;
        for (std::size_t i = 0; i < points.size(); i += every) some.push_back(points[i]);
        some.push_back(points.back());
        points = std::move(some);
    }
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (const auto& [step, value] : points) low = std::min(low, value), high = std::max(high, value);
    const double first = points.front().first, last = std::max(points.back().first, first + 1), room = high > low ? high - low : std::max(std::abs(high), 1e-9);
    const auto across = [&](double step) { return 6 + 308 * (step - first) / (last - first); };
    const auto up = [&](double value) { return high > low ? 94 - 88 * (value - low) / room : 50.0; };
    std::string path;
    for (const auto& [step, value] : points) path += (path.empty() ? "M" : " L") + quickstart::fixed(across(step), 1) + " " + quickstart::fixed(up(value), 1);
    const int digits = std::clamp(static_cast<int>(3 - std::floor(std::log10(std::max(std::abs(high), 1e-12)))), 0, 9);
    const auto shown = [&](double value) { return quickstart::fixed(value, digits); };
    return "<figure><figcaption><b>" + quickstart::escape(tag) + "</b> " + shown(points.back().second) + "<small> " + shown(low) + " to " + shown(high) +
           "</small></figcaption><svg viewBox=\"0 0 320 100\" role=\"img\" aria-label=\"" + quickstart::escape(tag) + " over the run\">" +
           (points.size() == 1 ? "<circle cx=\"160\" cy=\"50\" r=\"3\"/>" : "<path d=\"" + path + "\"/>") + "</svg></figure>";
}

void Records::write_report(std::size_t step, std::size_t steps, const std::string& state) {
    const auto now = std::chrono::steady_clock::now();
    if (state == "running" && now - written_ < std::chrono::seconds(5)) return;
    written_ = now;
    std::vector<std::string> tags;
    for (const Entry& entry : entries_) {
        for (const auto& [tag, value] : entry.scalars) {
            if (std::ranges::find(tags, tag) == tags.end()) tags.push_back(tag);
        }
    }
    std::string page = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">" +
                       std::string(state == "running" ? "<meta http-equiv=\"refresh\" content=\"60\">" : "") + "<title>" + quickstart::escape(folder_.filename().string()) + "</title><style>" +
                       std::string(quickstart::report_style) + R"css(
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(280px, 1fr)); gap: 20px; }
figure { margin: 0; background: var(--card); border-radius: 10px; padding: 12px 16px; }
figcaption { display: flex; flex-wrap: wrap; gap: 0 10px; align-items: baseline; font-variant-numeric: tabular-nums; }
figcaption small { color: var(--soft); }
figure svg { width: 100%; height: auto; display: block; }
figure path { fill: none; stroke: var(--accent); stroke-width: 1.5; }
figure circle { fill: var(--accent); }
dd { font-size: 17px; }
.found { display: flex; flex-wrap: wrap; gap: 8px; margin: 0 0 22px; }
.found img { width: 112px; height: 112px; object-fit: contain; background: #fff; border: 2px solid var(--line); border-radius: 6px; }
.found img.right { border-color: var(--accent); }
)css" + "</style></head><body><main><h1>" + quickstart::escape(folder_.filename().string()) + "</h1><p class=\"subtitle\">Step " + quickstart::grouped(std::to_string(step)) + " of " +
                       quickstart::grouped(std::to_string(steps)) + ": " + quickstart::escape(state) + "</p><dl class=\"facts\">";
    for (const auto& [name, value] : facts_) page += "<div><dt>" + quickstart::escape(name) + "</dt><dd>" + quickstart::escape(quickstart::grouped(value)) + "</dd></div>";
    page += "</dl><section><h2>Training</h2><div class=\"charts\">";
    for (const std::string& tag : tags) {
        if (tag.starts_with("train/")) page += chart(tag);
    }
    page += "</div></section>";
    if (std::ranges::any_of(tags, [](const std::string& tag) { return tag.starts_with("val/"); })) {
        page += "<section><h2>Validation</h2><div class=\"charts\">";
        for (const std::string& tag : tags) {
            if (tag.starts_with("val/")) page += chart(tag);
        }
        page += "</div></section>";
    }
    if (!found_.empty()) {
        page += "<section><h2>What captions find</h2><p>Among pictures that are not trained on; a caption's own has a coloured frame.</p>";
        for (const Found& found : found_) {
            page += "<h3>" + quickstart::escape(found.caption) + "</h3><div class=\"found\">";
            for (std::size_t i = 0; i < found.pictures.size(); ++i) {
                page += std::string("<img") + (i == found.right ? " class=\"right\"" : "") + " alt=\"" + (i == found.right ? "the caption's own picture" : "another picture") + "\" src=\"" +
                        quickstart::data_uri(found.pictures[i]) + "\">";
            }
            page += "</div>";
        }
        page += "</section>";
    }
    td::write_file_atomically(folder_ / "report.html", page + "</main></body></html>\n");
}

}  // namespace training
