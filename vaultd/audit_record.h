// audit_record.h - the lines of the audit log: their text, their chain, and who checks it. Part of: vaultd, and of the
// CLI, which needs no secret of the vault for it. Pure: no file, no clock. See docs/protocol.md §10.
//
// A line is one JSON object, its fields in one order, without blanks between them. Each ends in two values:
//   mac    keyed by a key that only the vault has at that moment, and that it wipes after the line: who takes the vault
//          later can't write another past. Checked with the log's first key (audit/verify.key, kept elsewhere).
//   chain  a hash of the line and of the chain value before it: checked by anybody.
// Never in a line: a text, a nonce, a box, a secret. Text of foreign origin comes in through auditText().
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "common/bytes.h"
#include "common/result.h"
#include "common/secret_bytes.h"

namespace sallyport::vaultd {

struct AuditKeyTag;
// Makes the mac of one record; the next record's key follows from it, never the other way.
using AuditKey = SecretBytes<AuditKeyTag, 32>;
struct AuditChainTag;
using AuditChain = Bytes<AuditChainTag, 32>;
struct AuditMacTag;
using AuditMac = Bytes<AuditMacTag, 16>;

void advance(AuditKey& key);

// A program or netd, as the kernel told when it connected. The pid is a hint.
struct AuditCaller {
  std::string socket;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t pid = 0;
  bool operator==(const AuditCaller&) const = default;
};

// What happened. Empty and zero fields don't apply and are left out of the line.
struct AuditRecord {
  uint64_t seq = 0;    // 1, 2, ... without a gap
  int64_t timeMs = 0;  // since 1970, UTC
  std::optional<AuditCaller> caller;
  std::string verb;  // of a program: "box"; of netd: "seal_cookie"; of an operator: "lock"; of the log: "start"
  std::string key;
  uint32_t version = 0;
  std::string entry;   // of a protocol step
  std::string peer;    // its name in [peers], else its public key in base64
  std::string domain;  // of fresh nonces
  uint64_t items = 0;
  uint64_t bytes = 0;
  std::string outcome;  // "ok", or the refusal's name
  std::string note;

  // Everything but sequence number, time and the sums: such records may be told as one.
  bool sameKind(const AuditRecord& other) const;
};

// No line is longer, newline included.
inline constexpr size_t MAX_AUDIT_LINE_BYTES = 1536;

// Printable ASCII without what JSON would have to escape, and short; anything else becomes `?`.
std::string auditText(std::string_view text, size_t most = 96);
std::string formatAuditTime(int64_t timeMs);  // "2026-11-21T04:00:00.000Z"
std::optional<int64_t> parseAuditTime(std::string_view text);

// The line of a record, without its newline; `chain` and `key` become those of the next one.
std::string sealRecord(const AuditRecord& record, AuditChain& chain, AuditKey& key);

// The first line of a file: where its records go on from. `segment` is the file's number; none in an export.
struct AuditHeader {
  std::optional<uint64_t> segment;
  uint64_t seq = 1;
  AuditChain previous;
};
std::string headerLine(const AuditHeader& header);
std::optional<AuditHeader> parseHeader(std::string_view line);

// A record as it stands in a line, not yet believed.
struct AuditLine {
  AuditRecord record;
  AuditMac mac;
  AuditChain chain;
};
std::optional<AuditLine> parseAuditLine(std::string_view line);

// The chain value and the number of the last record.
struct AuditHead {
  uint64_t seq = 0;
  AuditChain chain;
};

// Goes along the lines of a log and says of each if it is the one that the vault wrote there.
class AuditChecker {
 public:
  AuditChecker(uint64_t nextSeq, const AuditChain& previous) : head_{nextSeq - 1, previous} {}

  // From here on macs are checked too. `key` is that of the next record, or of record 1: then it is brought forward.
  void useKey(AuditKey key) { key_ = std::move(key); }
  void useFirstKey(AuditKey key);

  // The record, or what is wrong with the line; after that the checker is of no more use.
  Result<AuditRecord, std::string> take(std::string_view line);
  // May this file follow?
  Result<void, std::string> takeHeader(const AuditHeader& header) const;

  const AuditHead& head() const { return head_; }
  uint64_t nextSeq() const { return head_.seq + 1; }
  // The key of the next record, when keys are in use.
  AuditKey takeKey() { return std::move(*key_); }

 private:
  AuditHead head_;
  std::optional<AuditKey> key_;
};

// The lines of a file, one after the other.
class AuditLines {
 public:
  explicit AuditLines(std::string_view text) : rest_(text) {}
  // The next whole line without its newline; nothing at the end, or before a last line without one.
  std::optional<std::string_view> next();
  unsigned number() const { return number_; }  // of the line that next() gave
  size_t offset() const { return offset_; }    // where the line after it begins
  std::string_view rest() const { return rest_; }

 private:
  std::string_view rest_;
  unsigned number_ = 0;
  size_t offset_ = 0;
};

// audit/verify.key: the key of record 1 with a word to who finds it.
// The caller wipes it.
std::string verifyKeyText(const AuditKey& firstKey);
std::optional<AuditKey> parseVerifyKey(std::string_view text);

}  // namespace sallyport::vaultd
