// Goal: the text of an audit log is read by the letter: what is taken as a line or a header has one spelling, survives
// a second writing and reading, and no text of anybody's breaks who checks a log. Method: the input is a log's text:
// its lines one by one, and in a row as `sallyport audit verify` goes along them.
#include <optional>

#include "tests/fuzz/input.h"
#include "vaultd/audit_record.h"

using namespace sallyport;

namespace {

vaultd::AuditKey keyOfSeeds() {
  std::array<std::byte, vaultd::AuditKey::SIZE> bytes;
  bytes.fill(std::byte{7});
  return vaultd::AuditKey(bytes);
}

void tryLine(std::string_view line) {
  const auto parsed = vaultd::parseAuditLine(line);
  if (!parsed) return;
  CHECK(line.size() < vaultd::MAX_AUDIT_LINE_BYTES);
  CHECK(vaultd::parseAuditTime(vaultd::formatAuditTime(parsed->record.timeMs)) == parsed->record.timeMs);
  vaultd::AuditChain chain;
  vaultd::AuditKey key = keyOfSeeds();
  const std::string again = vaultd::sealRecord(parsed->record, chain, key);
  const auto read = vaultd::parseAuditLine(again);
  CHECK(read && read->record.sameKind(parsed->record) && read->record.seq == parsed->record.seq);
  CHECK(read->record.timeMs == parsed->record.timeMs && read->record.items == parsed->record.items);
  CHECK(read->record.bytes == parsed->record.bytes);
  // All but the mac and the chain value is as it was, byte by byte.
  CHECK(std::string_view(again).substr(0, again.rfind(",\"mac\":")) == line.substr(0, line.rfind(",\"mac\":")));
  CHECK(again.size() == line.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto key = vaultd::parseVerifyKey(text)) CHECK(vaultd::parseVerifyKey(vaultd::verifyKeyText(*key)));
  std::optional<vaultd::AuditChecker> checker;
  bool good = true;
  vaultd::AuditLines lines(text);
  while (const auto line = lines.next()) {
    tryLine(*line);
    const auto header = vaultd::parseHeader(*line);
    if (header) CHECK(vaultd::headerLine(*header) == *line);
    if (header && !checker) {
      checker.emplace(header->seq, header->previous);
      // Bringing the key forward costs a hash a record.
      if (header->seq <= 1000) checker->useFirstKey(keyOfSeeds());
    } else if (header) {
      good = good && checker->takeHeader(*header).has_value();
    } else if (checker && good) {
      const uint64_t next = checker->nextSeq();
      const auto taken = checker->take(*line);
      good = taken.has_value();
      CHECK(good ? taken->seq == next && checker->nextSeq() == next + 1 : !taken.error().empty());
    }
  }
  return 0;
}
