// audit_log.h - the audit log over files that it is given: a ring of segments, and what it must remember between two
// starts. Process: vaultd alone. Opens nothing itself. See docs/protocol.md §10.
//
//   append   gives the record its number, mac and chain value; it waits in memory
//   write    hands what waits to the kernel: a crash of the vault doesn't lose it any more
//   sync     write, fdatasync, and then the state: number, chain value and mac key of the *next* record. The key before
//            is overwritten, so nobody who comes later can make another record with it
//
// A record is lost only when memory for what waits is used up because the disk takes nothing; how many were lost is a
// record of its own as soon as there is room. A write or fdatasync that fails is tried again with the same bytes: they
// are kept until a sync has succeeded, so pages that the kernel dropped are written anew.
//
// A segment that is full is followed by an empty one, else by the oldest, which is overwritten; with `refuseWhenFull`
// only if its records were exported. A crash may leave half a line, or after a power cut anything, behind the last
// record of the state: that is cut off at the next start and told. Anything else that isn't right refuses the start.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "vaultd/audit_record.h"
#include "vaultd/problem.h"

namespace sallyport::vaultd {

// All that the log knows of a disk. Positive or zero: done, or that many bytes; negative: -errno. Short counts are
// possible.
class AuditFile {
 public:
  virtual ~AuditFile() = default;
  virtual std::string name() const = 0;  // for people
  virtual int64_t size() = 0;
  virtual ssize_t read(size_t offset, MutableByteSpan bytes) = 0;
  virtual ssize_t write(size_t offset, ByteSpan bytes) = 0;
  virtual int truncate(size_t size) = 0;
  virtual int sync() = 0;
};

struct AuditFiles {
  std::vector<std::unique_ptr<AuditFile>> segments;
  std::unique_ptr<AuditFile> state;
};

struct AuditLimits {
  size_t segmentBytes = size_t{16} << 20;
  bool refuseWhenFull = false;
};

class AuditLog {
 public:
  static constexpr size_t MAX_WAITING_BYTES = size_t{256} * 1024;
  static constexpr size_t STATE_SLOT_BYTES = 4096;

  // Checks what is there and goes on behind it. `key`, which must outlive the log, is where the mac key of the next
  // record lives: in secret memory. For a log that is new it holds the key of record 1.
  static Result<std::unique_ptr<AuditLog>, Problem> open(AuditFiles files, AuditLimits limits, AuditKey& key,
                                                         int64_t nowMs);
  // How many files the log with this state has; 0 if none has been begun.
  static Result<uint64_t, Problem> filesOf(AuditFile& state);
  // What the content of a state file says was written at least, and the first record that is kept: for who checks a log
  // without its vault. Nothing: it is damaged.
  struct Known {
    AuditHead head;
    uint64_t oldest = 1;
  };
  static std::optional<Known> knownBy(ByteSpan stateFile);

  // Number, mac and chain are given here. False: lost, and counted.
  bool append(AuditRecord record);
  bool write(int64_t nowMs);
  bool sync(int64_t nowMs);
  // After a failure: may records be taken again? Tries, and writes down what was lost.
  bool recover(int64_t nowMs);

  // Empty, or why records can't be written at the moment.
  const std::string& problem() const { return problem_; }
  bool waiting() const { return written_ < pending_.size() || untold_ > 0; }
  bool synced() const { return pending_.empty() && !stateDirty_; }
  // Of what the kernel has: what `audit verify` will find.
  const AuditHead& head() const { return writtenHead_; }
  uint64_t lost() const { return lost_; }
  uint64_t exported() const { return exported_; }
  uint64_t oldest() const { return oldest_; }
  // An operator has a copy of all records up to this one. False if there is no such record yet.
  bool markExported(uint64_t seq, int64_t nowMs);

 private:
  struct Segment {
    std::unique_ptr<AuditFile> file;
    uint64_t firstSeq = 0;  // 0: empty
    uint64_t lastSeq = 0;
  };
  struct State;
  struct Opening;

  explicit AuditLog(AuditKey& key) : key_(key) {}
  static Result<std::optional<State>, Problem> loadState(AuditFile& file);
  Result<void, Problem> readState();
  bool storeState();
  bool makeRoom(int64_t nowMs);
  bool fits(size_t lines) const;
  bool nextSegment();
  void beginSegment(size_t index);
  void add(AuditRecord record);
  void tellLost(int64_t nowMs);
  bool fail(const std::string& what, int error);

  std::vector<Segment> segments_;
  std::unique_ptr<AuditFile> stateFile_;
  AuditLimits limits_;

  size_t current_ = 0;
  size_t base_ = 0;      // what lies before this offset of the current segment is durable
  std::string pending_;  // what belongs behind it
  size_t written_ = 0;   // how much of that the kernel has
  AuditHead head_;       // of the last record appended
  AuditHead writtenHead_;
  AuditKey& key_;  // of the next record

  uint64_t generation_ = 0;  // of the newest slot of the state
  uint64_t stateNext_ = 1;   // as stored
  AuditChain stateChain_;
  uint64_t exported_ = 0;
  uint64_t oldest_ = 1;  // the first record that is kept, or about to be
  bool stateDirty_ = false;

  uint64_t lost_ = 0;
  uint64_t untold_ = 0;  // of those lost: not yet in the log
  bool syncFailed_ = false;
  bool full_ = false;
  std::string problem_;
};

}  // namespace sallyport::vaultd
