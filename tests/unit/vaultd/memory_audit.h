// memory_audit.h - files of an audit log that live in memory: with a cache that a power cut loses, and faults at chosen
// calls.
#pragma once

#include <cerrno>
#include <list>
#include <map>
#include <memory>
#include <random>

#include "vaultd/audit_log.h"

namespace sallyport::vaultd::test {

struct Crash {};

// All files of one folder. A call is a write, truncate or sync of any of them.
struct MemoryFolder {
  enum class Fault { None, CrashBefore, CrashAfter, Error, ShortWrite };
  struct File {
    std::string cached;
    std::string durable;
  };
  explicit MemoryFolder(size_t segments = 3) : files(segments + 1) {}

  std::vector<File> files;                                                              // the last is the state
  std::shared_ptr<std::list<AuditKey>> keys = std::make_shared<std::list<AuditKey>>();  // of the logs opened here
  std::map<unsigned, Fault> faults;
  unsigned calls = 0;
  int failAllWith = 0;  // an errno, until it is taken away
  int failSyncWith = 0;
  std::minstd_rand random{1};

  Fault next() {
    const auto planned = faults.find(calls++);
    return planned == faults.end() ? Fault::None : planned->second;
  }
  // What isn't synced may be there, or in part, or not at all.
  void powerCut() {
    for (File& file : files) {
      if (file.cached.size() >= file.durable.size() && random() % 2 == 0) {
        const size_t kept = file.durable.size() + random() % (file.cached.size() - file.durable.size() + 1);
        const bool hole = kept > file.durable.size() + 40 && random() % 3 == 0;
        file.durable = file.cached.substr(0, kept);
        // A hole where a page never came.
        if (hole) std::fill(file.durable.end() - 30, file.durable.end() - 10, '\0');
      }
      file.cached = file.durable;
    }
  }
};

class MemoryFile final : public AuditFile {
 public:
  MemoryFile(MemoryFolder& folder, size_t index) : folder_(folder), index_(index) {}
  std::string name() const override {
    return index_ + 1 == folder_.files.size() ? "state" : std::to_string(index_) + ".log";
  }
  int64_t size() override { return static_cast<int64_t>(file().cached.size()); }
  ssize_t read(size_t offset, MutableByteSpan bytes) override {
    const std::string& text = file().cached;
    if (offset >= text.size()) return 0;
    const size_t got = std::min(bytes.size(), text.size() - offset);
    std::memcpy(bytes.data(), text.data() + offset, got);
    return static_cast<ssize_t>(got);
  }
  ssize_t write(size_t offset, ByteSpan bytes) override {
    const auto fault = folder_.next();
    if (fault == MemoryFolder::Fault::CrashBefore) throw Crash();
    if (folder_.failAllWith != 0) return -folder_.failAllWith;
    size_t size = bytes.size();
    if (fault == MemoryFolder::Fault::ShortWrite || fault == MemoryFolder::Fault::Error) size = folder_.random() % size;
    std::string& text = file().cached;
    if (size > 0) {
      if (text.size() < offset + size) text.resize(offset + size, '\0');
      std::memcpy(text.data() + offset, bytes.data(), size);
    }
    if (fault == MemoryFolder::Fault::CrashAfter) throw Crash();
    if (fault == MemoryFolder::Fault::Error) return folder_.random() % 2 == 0 ? -EIO : -ENOSPC;
    return static_cast<ssize_t>(size);
  }
  int truncate(size_t size) override {
    const auto fault = folder_.next();
    if (fault == MemoryFolder::Fault::CrashBefore) throw Crash();
    if (folder_.failAllWith != 0) return -folder_.failAllWith;
    if (fault == MemoryFolder::Fault::Error || fault == MemoryFolder::Fault::ShortWrite) return -EIO;
    file().cached.resize(size, '\0');
    file().durable.resize(std::min(file().durable.size(), size));
    if (fault == MemoryFolder::Fault::CrashAfter) throw Crash();
    return 0;
  }
  int sync() override {
    const auto fault = folder_.next();
    if (fault == MemoryFolder::Fault::CrashBefore) throw Crash();
    if (folder_.failAllWith != 0) return -folder_.failAllWith;
    if (folder_.failSyncWith != 0) return -folder_.failSyncWith;
    if (fault == MemoryFolder::Fault::Error || fault == MemoryFolder::Fault::ShortWrite) return -EIO;  // nothing came
    file().durable = file().cached;
    if (fault == MemoryFolder::Fault::CrashAfter) throw Crash();
    return 0;
  }

 private:
  MemoryFolder::File& file() { return folder_.files[index_]; }

  MemoryFolder& folder_;
  size_t index_;
};

inline AuditFiles filesOf(MemoryFolder& folder) {
  AuditFiles files;
  for (size_t i = 0; i + 1 < folder.files.size(); ++i)
    files.segments.push_back(std::make_unique<MemoryFile>(folder, i));
  files.state = std::make_unique<MemoryFile>(folder, folder.files.size() - 1);
  return files;
}

// The key of record 1 in all these tests.
inline AuditKey firstKey() {
  std::array<std::byte, AuditKey::SIZE> bytes;
  bytes.fill(std::byte{7});
  return AuditKey(bytes);
}

inline Result<std::unique_ptr<AuditLog>, Problem> openLog(MemoryFolder& folder, AuditLimits limits = {}) {
  folder.keys->push_back(firstKey());
  return AuditLog::open(filesOf(folder), limits, folder.keys->back(), 1000);
}

inline AuditRecord boxRecord(std::string peer = "alice", int64_t timeMs = 1'000'000) {
  AuditRecord record;
  record.timeMs = timeMs;
  record.caller = AuditCaller{"main", 1001, 1002, 42};
  record.verb = "box";
  record.key = "backup";
  record.version = 2;
  record.peer = std::move(peer);
  record.items = 3;
  record.bytes = 1200;
  record.outcome = "ok";
  return record;
}

// The texts of the segments in the order of their records.
inline std::vector<std::string> segmentTexts(const MemoryFolder& folder, bool durable = false) {
  std::map<uint64_t, std::string> ordered;
  for (size_t i = 0; i + 1 < folder.files.size(); ++i) {
    const std::string& text = durable ? folder.files[i].durable : folder.files[i].cached;
    const auto header = parseHeader(text.substr(0, text.find('\n')));
    if (header) ordered[header->seq] = text;
  }
  std::vector<std::string> texts;
  for (auto& [seq, text] : ordered) texts.push_back(std::move(text));
  return texts;
}

// What an independent reader finds: all records, or what is wrong.
inline Result<std::vector<AuditRecord>, std::string> readBack(const MemoryFolder& folder) {
  std::vector<AuditRecord> records;
  std::optional<AuditChecker> checker;
  for (const std::string& text : segmentTexts(folder)) {
    AuditLines lines(text);
    const auto header = parseHeader(*lines.next());
    if (!checker) {
      checker.emplace(header->seq, header->previous);
      checker->useFirstKey(firstKey());
    }
    if (auto follows = checker->takeHeader(*header); !follows) return refuse(follows.error());
    while (const auto line = lines.next()) {
      auto record = checker->take(*line);
      if (!record) return refuse(record.error());
      records.push_back(std::move(*record));
    }
    if (!lines.rest().empty()) return refuse(std::string("half a line"));
  }
  return records;
}

}  // namespace sallyport::vaultd::test
