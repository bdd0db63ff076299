// sandbox_report.cc - see sandbox_report.h.
#include "netd/sandbox_report.h"

#include "common/log.h"

namespace sallyport::netd {

namespace {
constexpr size_t MAX_LAYERS = 32;

// Cuts `text` at the first `mark`; the rest stays in `text`.
std::string_view take(std::string_view& text, char mark) {
  const size_t end = std::min(text.find(mark), text.size());
  const std::string_view field = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return field;
}
}  // namespace

std::string encodeReport(const sandbox::Report& report) {
  std::string text(sandbox::name(report.verdict()));
  text += '\n';
  for (const sandbox::Layer& layer : report.layers) {
    text += layer.name + '\t' + std::string(sandbox::name(layer.state)) + '\t' + sanitized(layer.detail) + '\n';
  }
  return text;
}

ReportedSandbox decodeReport(std::string_view text) {
  ReportedSandbox report;
  report.verdict = sanitized(take(text, '\n'));
  while (!text.empty() && report.layers.size() < MAX_LAYERS) {
    std::string_view line = take(text, '\n');
    ReportedLayer layer;
    layer.name = sanitized(take(line, '\t'));
    layer.state = sanitized(take(line, '\t'));
    layer.detail = sanitized(line);
    report.layers.push_back(std::move(layer));
  }
  return report;
}

}  // namespace sallyport::netd
