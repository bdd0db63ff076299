#include "vaultd/audit_log.h"

#include <sodium.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>

namespace sallyport::vaultd {

namespace {

constexpr std::string_view MAGIC = "SPAUDIT1";
constexpr size_t HASH_BYTES = 32;
constexpr size_t MAX_STATE_FILES = 64;
using Slot = SecretBytes<struct AuditSlotTag, AuditLog::STATE_SLOT_BYTES>;

void putNumber(MutableByteSpan bytes, uint64_t value) {
  for (size_t i = 0; i < 8; ++i) bytes[i] = static_cast<std::byte>(value >> (56 - 8 * i));
}
uint64_t number(ByteSpan bytes) {
  uint64_t value = 0;
  for (size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint64_t>(bytes[i]);
  return value;
}

std::array<std::byte, HASH_BYTES> checksum(ByteSpan bytes) {
  std::array<std::byte, HASH_BYTES> result;
  CHECK(crypto_generichash_blake2b(reinterpret_cast<unsigned char*>(result.data()), result.size(), uchars(bytes),
                                   bytes.size(), nullptr, 0) == 0);
  return result;
}

// 0, or -errno. A disk that takes nothing and doesn't say why is full.
int writeAll(AuditFile& file, size_t offset, ByteSpan bytes, size_t& done) {
  while (done < bytes.size()) {
    const ssize_t written = file.write(offset + done, bytes.subspan(done));
    if (written == -EINTR) continue;
    if (written < 0) return static_cast<int>(written);
    if (written == 0) return -ENOSPC;
    done += static_cast<size_t>(written);
  }
  return 0;
}

Result<std::string, Problem> readAll(AuditFile& file, size_t most) {
  const auto problem = [&](const std::string& what) { return refuse(Problem{file.name() + ": " + what, {}}); };
  const int64_t size = file.size();
  if (size < 0) return problem("can't read: " + std::string(std::strerror(static_cast<int>(-size))));
  if (static_cast<uint64_t>(size) > most) return problem("is larger than a file of an audit log can be");
  std::string text(static_cast<size_t>(size), '\0');
  size_t done = 0;
  while (done < text.size()) {
    const auto rest = std::as_writable_bytes(std::span(text)).subspan(done);
    const ssize_t got = file.read(done, rest);
    if (got == -EINTR) continue;
    if (got < 0) return problem("can't read: " + std::string(std::strerror(static_cast<int>(-got))));
    if (got == 0) return problem("became shorter while it was read");
    done += static_cast<size_t>(got);
  }
  return text;
}

// The log never writes a longer file, and takes none; a smaller `file_mib` than before is no harm.
constexpr size_t MAX_SEGMENT_BYTES = size_t{1} << 30;

bool holdsARecord(std::string_view text) {
  AuditLines lines(text);
  while (const auto line = lines.next()) {
    if (parseAuditLine(*line)) return true;
  }
  return false;
}

}  // namespace

// What is remembered between two starts. Slots alternate by generation; the one that isn't the newest is zero, or about
// to be: it holds a key that should be gone.
struct AuditLog::State {
  uint64_t generation = 0;
  uint64_t next = 1;  // number of the first record that isn't covered yet
  uint64_t exported = 0;
  uint64_t files = 0;
  uint64_t oldest = 1;  // the first record that is kept
  AuditChain chain;
  AuditKey key;

  Slot encode() const {
    Slot slot;
    const auto bytes = slot.exposeMutable();
    std::memcpy(bytes.data(), MAGIC.data(), MAGIC.size());
    putNumber(bytes.subspan(8), generation);
    putNumber(bytes.subspan(16), next);
    putNumber(bytes.subspan(24), exported);
    putNumber(bytes.subspan(32), files);
    putNumber(bytes.subspan(40), oldest);
    std::memcpy(bytes.data() + 48, chain.data(), AuditChain::SIZE);
    std::memcpy(bytes.data() + 80, key.exposeData(), AuditKey::SIZE);
    const auto sum = checksum(bytes.first<STATE_SLOT_BYTES - HASH_BYTES>());
    std::copy(sum.begin(), sum.end(), bytes.end() - HASH_BYTES);
    return slot;
  }
  static std::optional<State> decode(ByteSpan bytes, size_t index) {
    if (bytes.size() != STATE_SLOT_BYTES || std::memcmp(bytes.data(), MAGIC.data(), MAGIC.size()) != 0) {
      return std::nullopt;
    }
    const auto sum = checksum(bytes.first(STATE_SLOT_BYTES - HASH_BYTES));
    if (!std::equal(sum.begin(), sum.end(), bytes.end() - HASH_BYTES)) return std::nullopt;
    State state{number(bytes.subspan(8)),
                number(bytes.subspan(16)),
                number(bytes.subspan(24)),
                number(bytes.subspan(32)),
                number(bytes.subspan(40)),
                AuditChain(bytes.subspan(48, AuditChain::SIZE)),
                AuditKey(bytes.subspan(80, AuditKey::SIZE))};
    const bool plausible = state.next > 0 && state.exported < state.next && state.files <= MAX_STATE_FILES;
    if (state.generation % 2 != index || !plausible) return std::nullopt;
    return state;
  }
};

// --- opening ---------------------------------------------------------------------------------------------------------

Result<std::optional<AuditLog::State>, Problem> AuditLog::loadState(AuditFile& file) {
  if (file.size() == 0) return std::optional<State>();
  const auto bad = [&](const std::string& what) {
    return refuse(Problem{file.name() + ": " + what,
                          "nobody can go on with this log: keep it, move the whole folder away, and a new one begins"});
  };
  std::optional<State> newest;
  for (size_t index = 0; index < 2; ++index) {
    Slot slot;
    const ssize_t got = file.read(index * STATE_SLOT_BYTES, slot.exposeMutable());
    if (got < 0) return bad("can't read: " + std::string(std::strerror(static_cast<int>(-got))));
    if (static_cast<size_t>(got) < STATE_SLOT_BYTES) continue;
    auto state = State::decode(slot.expose(), index);
    if (state && (!newest || state->generation > newest->generation)) newest = std::move(state);
  }
  if (!newest) return bad("is damaged");
  return newest;
}

Result<uint64_t, Problem> AuditLog::filesOf(AuditFile& state) {
  const auto loaded = loadState(state);
  if (!loaded) return refuse(loaded.error());
  return *loaded ? (*loaded)->files : 0;
}

std::optional<AuditLog::Known> AuditLog::knownBy(ByteSpan stateFile) {
  if (stateFile.size() != 2 * STATE_SLOT_BYTES) return std::nullopt;
  std::optional<State> newest;
  for (size_t index = 0; index < 2; ++index) {
    auto state = State::decode(stateFile.subspan(index * STATE_SLOT_BYTES, STATE_SLOT_BYTES), index);
    if (state && (!newest || state->generation > newest->generation)) newest = std::move(state);
  }
  if (!newest) return std::nullopt;
  return Known{{newest->next - 1, newest->chain}, newest->oldest};
}

Result<void, Problem> AuditLog::readState() {
  auto loaded = loadState(*stateFile_);
  // A crash in the first of all writes leaves a state that is no state yet, and nothing else.
  const bool empty = std::ranges::all_of(segments_, [](const Segment& each) { return each.file->size() == 0; });
  if (!loaded && !empty) return refuse(loaded.error());
  if (!loaded || !*loaded) return {};
  State& state = **loaded;
  generation_ = state.generation;
  stateNext_ = state.next;
  stateChain_ = state.chain;
  exported_ = state.exported;
  oldest_ = state.oldest;
  key_ = std::move(state.key);
  return {};
}

// Reads the segments in their order, holding each line against the chain, and those behind the state against the key.
struct AuditLog::Opening {
  AuditLog& log;
  struct Found {
    size_t index;
    std::string text;
    AuditHeader header;
  };
  std::vector<Found> found;      // in the order of their records
  std::vector<size_t> headless;  // something is in it, and no header
  std::optional<AuditChecker> checker;
  uint64_t torn = 0;  // bytes cut off

  Problem at(const std::string& file, unsigned line, const std::string& what) const {
    return {file + ":" + std::to_string(line) + ": " + what,
            "keep the files as they are, look with `sallyport audit verify`; moved away as a whole, a new log begins"};
  }
  AuditFile& file(size_t index) const { return *log.segments_[index].file; }

  Result<void, Problem> readSegments() {
    for (size_t index = 0; index < log.segments_.size(); ++index) {
      auto text = readAll(file(index), MAX_SEGMENT_BYTES);
      if (!text) return refuse(text.error());
      if (text->empty()) continue;
      AuditLines lines(*text);
      const auto first = lines.next();
      const auto header = first ? parseHeader(*first) : std::nullopt;
      if (!header) {
        // A new segment that a power cut took before its first line was durable holds no record.
        if (holdsARecord(*text)) return refuse(at(file(index).name(), 1, "this is not the first line of an audit log"));
        headless.push_back(index);
        torn += text->size();
        continue;
      }
      if (header->segment != index) {
        return refuse(at(file(index).name(), 1, "this is another segment: files were swapped or renamed"));
      }
      found.push_back({index, std::move(*text), *header});
    }
    std::ranges::sort(found, {}, [](const Found& each) { return each.header.seq; });
    return {};
  }

  Result<void, Problem> meetState() {
    if (checker->nextSeq() != log.stateNext_) return {};
    if (checker->head().chain != log.stateChain_) {
      return refuse(Problem{log.stateFile_->name() + ": record " + std::to_string(checker->head().seq) +
                                " is not the one that was written: the log was replaced",
                            "keep the files as they are, and compare with a copy"});
    }
    checker->useKey(std::move(log.key_));
    return {};
  }

  // Up to where the lines of a segment are covered by the state, and up to where they are whole.
  struct Ends {
    size_t covered = 0;
    size_t whole = 0;
  };
  Result<Ends, Problem> readLines(const Found& segment, bool last) {
    const std::string name = file(segment.index).name();
    if (auto follows = checker->takeHeader(segment.header); !follows) { return refuse(at(name, 1, follows.error())); }
    AuditLines lines(segment.text);
    lines.next();
    Ends ends{segment.header.seq < log.stateNext_ ? lines.offset() : 0, lines.offset()};
    while (const auto line = lines.next()) {
      const bool covered = checker->nextSeq() < log.stateNext_;
      const auto taken = checker->take(*line);
      // Half a line is what a crash leaves. A whole one that is wrong is somebody's.
      if (!taken && last && !covered && !parseAuditLine(*line)) return ends;
      if (!taken) return refuse(at(name, lines.number(), taken.error()));
      ends.whole = lines.offset();
      if (covered) ends.covered = lines.offset();
      if (auto met = meetState(); !met) return refuse(met.error());
    }
    if (!lines.rest().empty() && (!last || checker->nextSeq() < log.stateNext_)) {
      return refuse(at(name, lines.number() + 1, "ends in the middle of a line: its end was cut off"));
    }
    return ends;
  }

  Result<void, Problem> run() {
    if (auto read = readSegments(); !read) return refuse(read.error());
    if (found.empty()) {
      checker.emplace(1, AuditChain());
    } else {
      checker.emplace(found[0].header.seq, found[0].header.previous);
    }
    if (checker->nextSeq() > log.oldest_) {
      return refuse(Problem{file(found[0].index).name() + ":1: records " + std::to_string(log.oldest_) + " to " +
                                std::to_string(checker->head().seq) +
                                " are missing before this one: a file was emptied",
                            "keep the files as they are; moved away as a whole, a new log begins"});
    }
    if (checker->nextSeq() > log.stateNext_) {
      return refuse(Problem{log.stateFile_->name() + ": is older than the log: records up to " +
                                std::to_string(log.stateNext_ - 1) + " only",
                            "keep the files as they are; moved away as a whole, a new log begins"});
    }
    if (auto met = meetState(); !met) return refuse(met.error());
    for (size_t i = 0; i < found.size(); ++i) {
      const Found& segment = found[i];
      const bool last = i + 1 == found.size();
      const auto ends = readLines(segment, last);
      if (!ends) return refuse(ends.error());
      log.segments_[segment.index].firstSeq = segment.header.seq;
      log.segments_[segment.index].lastSeq = checker->head().seq;
      if (!last) continue;
      log.current_ = segment.index;
      // What the kernel shows behind the state may never have reached the disk: it is written again.
      log.base_ = ends->covered;
      log.pending_ = segment.text.substr(ends->covered, ends->whole - ends->covered);
      torn += segment.text.size() - ends->whole;
    }
    if (checker->nextSeq() < log.stateNext_) {
      return refuse(Problem{log.stateFile_->name() + ": records up to " + std::to_string(log.stateNext_ - 1) +
                                " were written, but the log ends with " + std::to_string(checker->head().seq) +
                                ": its end was cut off",
                            "keep the files as they are; moved away as a whole, a new log begins"});
    }
    return {};
  }
};

Result<std::unique_ptr<AuditLog>, Problem> AuditLog::open(AuditFiles files, AuditLimits limits, AuditKey& key,
                                                          int64_t nowMs) {
  std::unique_ptr<AuditLog> log(new AuditLog(key));
  CHECK(files.segments.size() >= 2 && files.segments.size() <= MAX_STATE_FILES);
  for (auto& file : files.segments) log->segments_.push_back({std::move(file)});
  log->stateFile_ = std::move(files.state);
  log->limits_ = limits;
  if (auto read = log->readState(); !read) return refuse(read.error());
  Opening opening{*log, {}, {}, {}, 0};
  if (auto opened = opening.run(); !opened) return refuse(opened.error());
  log->head_ = log->writtenHead_ = opening.checker->head();
  log->key_ = opening.checker->takeKey();

  const auto failed = [](AuditFile& file, int error) {
    return refuse(Problem{file.name() + ": can't write: " + std::strerror(-error), "make room on that file system"});
  };
  for (const size_t index : opening.headless) {
    AuditFile& file = *log->segments_[index].file;
    if (const int error = file.truncate(0); error < 0) return failed(file, error);
  }
  if (log->generation_ == 0 && !log->storeState()) {
    // A record that no state covers must not be the beginning of a log.
    return refuse(Problem{log->problem_, "make room on that file system: a new log has to be begun"});
  }
  if (opening.found.empty()) {
    log->beginSegment(0);
  } else if (AuditFile& file = *log->segments_[log->current_].file; opening.torn > 0) {
    if (const int error = file.truncate(log->base_ + log->pending_.size()); error < 0) return failed(file, error);
  }
  if (opening.torn > 0) {
    AuditRecord torn;
    torn.timeMs = nowMs;
    torn.verb = "torn";
    torn.bytes = opening.torn;
    torn.outcome = "ok";
    torn.note = "a crash cut off a record that was being written";
    log->append(std::move(torn));
  }
  // A disk that is full now may have room later: that is not a reason not to start.
  log->stateDirty_ = true;
  log->sync(nowMs);
  return log;
}

// --- writing ---------------------------------------------------------------------------------------------------------

bool AuditLog::fail(const std::string& what, int error) {
  problem_ = what + ": " + std::strerror(-error);
  return false;
}

void AuditLog::add(AuditRecord record) {
  record.seq = head_.seq + 1;
  pending_ += sealRecord(record, head_.chain, key_);
  pending_ += '\n';
  head_.seq = record.seq;
  segments_[current_].lastSeq = record.seq;
}

bool AuditLog::fits(size_t lines) const {
  return base_ + pending_.size() + lines * MAX_AUDIT_LINE_BYTES <= limits_.segmentBytes;
}

bool AuditLog::append(AuditRecord record) {
  // One line is left for what was lost.
  const int64_t nowMs = record.timeMs;
  if (untold_ == 0 && makeRoom(nowMs)) {
    add(std::move(record));
    return true;
  }
  ++lost_;
  ++untold_;
  return false;
}

bool AuditLog::makeRoom(int64_t nowMs) {
  if (pending_.size() > MAX_WAITING_BYTES && !sync(nowMs)) return false;
  if (fits(2)) return true;
  return sync(nowMs) && (fits(2) || nextSegment());
}

void AuditLog::tellLost(int64_t nowMs) {
  if (untold_ == 0 || full_ || !fits(1)) return;
  AuditRecord record;
  record.timeMs = nowMs;
  record.verb = "lost";
  record.items = untold_;
  record.outcome = "lost";
  record.note = "so many records could not be written";
  untold_ = 0;
  add(std::move(record));
}

bool AuditLog::write(int64_t nowMs) {
  AuditFile& file = *segments_[current_].file;
  for (bool again = true; again; again = written_ < pending_.size()) {
    if (const int error = writeAll(file, base_, asBytes(pending_), written_); error < 0) {
      return fail(file.name(), error);
    }
    writtenHead_ = head_;
    tellLost(nowMs);
  }
  if (untold_ == 0 && !syncFailed_ && !full_) problem_.clear();
  return true;
}

bool AuditLog::sync(int64_t nowMs) {
  if (synced() && untold_ == 0) return problem_.empty();
  if (!write(nowMs)) return false;
  AuditFile& file = *segments_[current_].file;
  if (!pending_.empty()) {
    if (const int error = file.sync(); error < 0) {
      written_ = 0;  // the kernel may have dropped any of it
      syncFailed_ = true;
      return fail(file.name(), error);
    }
    base_ += pending_.size();
    pending_.clear();
    written_ = 0;
    stateDirty_ = true;
  }
  if (stateDirty_ && !storeState()) {
    syncFailed_ = true;
    return false;
  }
  syncFailed_ = false;
  if (untold_ == 0 && !full_) problem_.clear();
  return true;
}

bool AuditLog::storeState() {
  State state{generation_ + 1, head_.seq + 1,          exported_, segments_.size(), oldest_,
              head_.chain,     AuditKey(key_.expose())};
  const Slot slot = state.encode();
  size_t done = 0;
  const size_t index = state.generation % 2;
  if (const int error = writeAll(*stateFile_, index * STATE_SLOT_BYTES, slot.expose(), done); error < 0) {
    return fail(stateFile_->name(), error);
  }
  if (const int error = stateFile_->sync(); error < 0) return fail(stateFile_->name(), error);
  generation_ = state.generation;
  stateNext_ = state.next;
  stateDirty_ = false;
  // The key before: no sync, the next one carries it. Failing costs nothing but that.
  static constexpr std::array<std::byte, STATE_SLOT_BYTES> ZEROS{};
  done = 0;
  static_cast<void>(writeAll(*stateFile_, (1 - index) * STATE_SLOT_BYTES, ZEROS, done));
  return true;
}

void AuditLog::beginSegment(size_t index) {
  current_ = index;
  base_ = 0;
  written_ = 0;
  pending_ = headerLine({index, head_.seq + 1, head_.chain}) + "\n";
  segments_[index].firstSeq = head_.seq + 1;
  segments_[index].lastSeq = head_.seq;
}

// All of the current one is durable.
bool AuditLog::nextSegment() {
  const auto oldest = std::ranges::min_element(segments_, {}, &Segment::firstSeq);  // an empty one has 0
  const auto index = static_cast<size_t>(oldest - segments_.begin());
  CHECK(index != current_);
  full_ = limits_.refuseWhenFull && oldest->firstSeq != 0 && oldest->lastSeq > exported_;
  if (full_) {
    problem_ = "all files are full, and records from " + std::to_string(oldest->firstSeq) +
               " on are not exported: sallyport audit export --mark";
    return false;
  }
  if (oldest->firstSeq != 0) {
    // First the state: records that are missing without its word are somebody's doing.
    oldest_ = oldest->lastSeq + 1;
    if (!storeState()) return false;
  }
  if (const int error = oldest->file->truncate(0); error < 0) return fail(oldest->file->name(), error);
  beginSegment(index);
  return true;
}

bool AuditLog::recover(int64_t nowMs) { return makeRoom(nowMs) && sync(nowMs) && untold_ == 0; }

bool AuditLog::markExported(uint64_t seq, int64_t nowMs) {
  if (seq > head_.seq) return false;
  exported_ = std::max(exported_, seq);
  stateDirty_ = true;
  static_cast<void>(recover(nowMs));
  return true;
}

}  // namespace sallyport::vaultd
