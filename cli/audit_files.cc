#include "cli/audit_files.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

namespace sallyport::cli {
namespace {

namespace fs = std::filesystem;
using namespace vaultd;

constexpr size_t MAX_HEADER_BYTES = 256;

std::string at(const std::string& name, unsigned line, const std::string& what) {
  return name + ":" + std::to_string(line) + ": " + what;
}

Result<std::string, std::string> readFrom(const fs::path& path, size_t offset, size_t most = SIZE_MAX) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return refuse(path.string() + ": can't open: " + std::strerror(errno));
  in.seekg(static_cast<std::streamoff>(offset));
  std::string text;
  char piece[65536];
  while (text.size() < most &&
         (in.read(piece, static_cast<std::streamsize>(std::min(sizeof piece, most - text.size()))), in.gcount() > 0)) {
    text.append(piece, static_cast<size_t>(in.gcount()));
  }
  if (in.bad()) return refuse(path.string() + ": can't read");
  return text;
}

// The number of "12.log".
std::optional<uint64_t> segmentOf(const fs::path& path) {
  const std::string stem = path.stem().string();
  const bool digits = !stem.empty() && stem.size() <= 3 && stem.find_first_not_of("0123456789") == std::string::npos;
  if (path.extension() != ".log" || !digits) return std::nullopt;
  return std::stoul(stem);
}

Result<AuditSource, std::string> sourceOf(const std::string& name, std::string text) {
  AuditLines lines(text);
  const auto first = lines.next();
  const auto header = first ? parseHeader(*first) : std::nullopt;
  if (!header) return refuse(at(name, 1, "this is not the first line of an audit log"));
  return AuditSource{name, std::move(text), *header};
}

void sortByRecord(std::vector<AuditSource>& sources) {
  std::ranges::stable_sort(sources, {}, [](const AuditSource& source) { return source.header.seq; });
}

}  // namespace

AuditSources readAuditFolder(const fs::path& folder, std::optional<unsigned> files) {
  std::error_code failure;
  std::vector<std::pair<uint64_t, fs::path>> paths;
  for (const auto& entry : fs::directory_iterator(folder, failure)) {
    if (const auto segment = segmentOf(entry.path())) paths.emplace_back(*segment, entry.path());
  }
  if (failure) return refuse(folder.string() + ": can't open: " + failure.message());
  std::ranges::sort(paths);
  if (paths.empty()) return refuse(folder.string() + ": there is no audit log in it");
  for (uint64_t i = 0; i < std::max<uint64_t>(files.value_or(0), paths.back().first + 1); ++i) {
    if (i >= paths.size() || paths[i].first != i) {
      return refuse((folder / (std::to_string(i) + ".log")).string() + " is missing");
    }
  }
  std::vector<AuditSource> sources;
  for (const auto& [segment, path] : paths) {
    auto text = readFrom(path, 0);
    if (!text) return refuse(text.error());
    if (text->empty()) continue;
    auto source = sourceOf(path.string(), std::move(*text));
    if (!source) return refuse(source.error());
    if (source->header.segment != segment) {
      return refuse(at(path.string(), 1, "this is another segment: files were swapped or renamed"));
    }
    sources.push_back(std::move(*source));
  }
  sortByRecord(sources);
  return sources;
}

AuditSources readAuditExports(const std::vector<std::string>& paths) {
  std::vector<AuditSource> sources;
  for (const auto& path : paths) {
    auto text = readFrom(path, 0);
    if (!text) return refuse(text.error());
    auto source = sourceOf(path, std::move(*text));
    if (!source) return refuse(source.error());
    sources.push_back(std::move(*source));
  }
  sortByRecord(sources);
  return sources;
}

Result<AuditSummary, std::string> checkAudit(const std::vector<AuditSource>& sources, std::optional<AuditKey> firstKey,
                                             const AuditVisitor& visit) {
  AuditSummary summary;
  if (sources.empty()) return summary;
  AuditChecker checker(sources[0].header.seq, sources[0].header.previous);
  if (firstKey) checker.useFirstKey(std::move(*firstKey));
  if (sources[0].header.seq == 1 && sources[0].header.previous != AuditChain()) {
    return refuse(at(sources[0].name, 1, "record 1 follows no other: the line was changed"));
  }
  for (const auto& source : sources) {
    if (const auto follows = checker.takeHeader(source.header); !follows) {
      return refuse(at(source.name, 1, follows.error()));
    }
    AuditLines lines(source.text);
    lines.next();
    while (const auto line = lines.next()) {
      const auto record = checker.take(*line);
      if (!record) return refuse(at(source.name, lines.number(), record.error()));
      if (summary.first == 0) summary.first = record->seq;
      visit(*record, *line);
    }
    if (lines.rest().empty()) continue;
    // A crash, or a vault that is writing just now, leaves half a line behind the last record, and nowhere else.
    if (&source != &sources.back() || !source.header.segment) {
      return refuse(at(source.name, lines.number() + 1, "the line ends in its middle: what followed was cut off"));
    }
    summary.torn = source.name;
  }
  summary.head = checker.head();
  return summary;
}

std::vector<AuditRecord> AuditFollower::poll() {
  std::vector<AuditRecord> records;
  for (bool more = true; more;) {
    more = false;
    // The file whose records follow: the one that we are in, else the next by its first record.
    fs::path next;
    uint64_t nextBegins = 0;
    std::error_code failure;
    for (const auto& entry : fs::directory_iterator(folder_, failure)) {
      if (!segmentOf(entry.path())) continue;
      const auto head = readFrom(entry.path(), 0, MAX_HEADER_BYTES);
      const auto header = head ? parseHeader(head->substr(0, head->find('\n'))) : std::nullopt;
      if (!header || header->seq <= begins_) continue;
      const bool earlier = next.empty() || header->seq < nextBegins;
      if (begins_ == 0 ? header->seq <= last_ + 1 && header->seq > nextBegins : earlier) {
        next = entry.path();
        nextBegins = header->seq;
      }
    }
    if (!file_.empty()) {
      const auto text = readFrom(file_, offset_);
      AuditLines lines(text ? std::string_view(*text) : std::string_view());
      while (const auto line = lines.next()) {
        auto parsed = parseAuditLine(*line);
        if (!parsed || parsed->record.seq <= last_) continue;
        last_ = parsed->record.seq;
        records.push_back(std::move(parsed->record));
      }
      offset_ += lines.offset();
    }
    if (!next.empty()) {
      file_ = next;
      begins_ = nextBegins;
      offset_ = 0;
      more = true;
    }
  }
  return records;
}

}  // namespace sallyport::cli
