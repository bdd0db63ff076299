// Goal: a line of the audit log says one thing in one way, and no change to a log goes unseen.
// Method: lines made and read back; a log of some records with every kind of tampering.
#include "vaultd/audit_record.h"

#include <gtest/gtest.h>

#include "tests/unit/vaultd/memory_audit.h"
#include "tests/unit/vaultd/support.h"

namespace sallyport::vaultd {
namespace {

using test::boxRecord;
using test::contains;
using test::firstKey;

std::vector<std::string> someLines(unsigned count) {
  AuditChain chain;
  AuditKey key = firstKey();
  std::vector<std::string> lines;
  for (unsigned i = 1; i <= count; ++i) {
    AuditRecord record = boxRecord("peer" + std::to_string(i));
    record.seq = i;
    lines.push_back(sealRecord(record, chain, key));
  }
  return lines;
}

// What is found wrong, and in which line; empty if all is well.
std::string check(const std::vector<std::string>& lines, bool withKey = false) {
  AuditChecker checker(1, {});
  if (withKey) checker.useFirstKey(firstKey());
  for (size_t i = 0; i < lines.size(); ++i) {
    if (const auto taken = checker.take(lines[i]); !taken) return std::to_string(i + 1) + ": " + taken.error();
  }
  return {};
}

TEST(AuditHeader, HasOneSpelling) {
  const std::string line = headerLine({3, 12, {}});
  ASSERT_TRUE(parseHeader(line));
  for (const auto& [from, to] :
       {std::pair{"\"seq\":12", "\"seq\":012"}, std::pair{"\"segment\":3", "\"segment\":03"}}) {
    std::string other = line;
    other.replace(other.find(from), std::string_view(from).size(), to);
    EXPECT_FALSE(parseHeader(other)) << other;
  }
}

TEST(AuditRecord, StandsInOneLineInFixedOrder) {
  const std::string line = someLines(1)[0];
  EXPECT_TRUE(line.starts_with(
      R"({"seq":1,"time":"1970-01-01T00:16:40.000Z","socket":"main","uid":1001,"gid":1002,"pid":42,"verb":"box",)"
      R"("key":"backup","version":2,"peer":"peer1","items":3,"bytes":1200,"outcome":"ok","mac":")"))
      << line;
  const auto parsed = parseAuditLine(line);
  ASSERT_TRUE(parsed.has_value());
  EXPECT_TRUE(parsed->record.sameKind(boxRecord("peer1")));
  EXPECT_EQ(parsed->record.bytes, 1200u);
}

TEST(AuditRecord, LeavesOutWhatDoesNotApply) {
  AuditChain chain;
  AuditKey key = firstKey();
  AuditRecord record;
  record.seq = 1;
  record.verb = "start";
  record.outcome = "ok";
  const std::string line = sealRecord(record, chain, key);
  EXPECT_TRUE(line.starts_with(R"({"seq":1,"time":"1970-01-01T00:00:00.000Z","verb":"start","outcome":"ok","mac":")"));
  EXPECT_FALSE(parseAuditLine(line)->record.caller.has_value());
}

TEST(AuditRecord, KeepsHostileTextHarmlessAndShort) {
  AuditChain chain;
  AuditKey key = firstKey();
  AuditRecord record = boxRecord("\"},\n{\"\\\x1b[2J\xff");
  record.seq = 1;
  record.verb = record.key = record.entry = record.domain = record.outcome = record.note = std::string(5000, '\n');
  record.caller->socket = std::string(5000, 'x');
  record.items = record.bytes = UINT64_MAX;
  const std::string line = sealRecord(record, chain, key);
  EXPECT_LT(line.size(), MAX_AUDIT_LINE_BYTES);
  EXPECT_EQ(line.find_first_of("\n\\\x1b\xff"), std::string::npos);
  EXPECT_TRUE(parseAuditLine(line).has_value());
  EXPECT_EQ(parseAuditLine(line)->record.peer, "?},?{???[2J?");
}

TEST(AuditRecord, ReadsNoOtherSpelling) {
  const std::string line = someLines(1)[0];
  for (const auto& [from, to] :
       std::vector<std::pair<std::string, std::string>>{{"\"seq\":1", "\"seq\":01"},
                                                        {"\"seq\":1", "\"seq\": 1"},
                                                        {"\"items\":3", "\"items\":0"},
                                                        {"T00:16", "T00:76"},
                                                        {"\"ok\"", "\"o\\u006b\""},
                                                        {"\"key\":\"backup\",", "\"key\":\"\","},
                                                        {"\"uid\":1001,", ""},
                                                        {"\"uid\":1001", "\"uid\":-1"},
                                                        {"\"uid\":1001", "\"uid\":99999999999"}}) {
    std::string other = line;
    ASSERT_NE(other.find(from), std::string::npos);
    other.replace(other.find(from), from.size(), to);
    EXPECT_FALSE(parseAuditLine(other).has_value()) << other;
  }
  EXPECT_FALSE(parseAuditLine(line + " ").has_value());
  for (size_t length = 0; length < line.size(); ++length) EXPECT_FALSE(parseAuditLine(line.substr(0, length)));
}

TEST(AuditRecord, TimesGoThereAndBack) {
  for (const char* text : {"1970-01-01T00:00:00.000Z", "2026-11-21T07:23:53.123Z", "2024-02-29T23:59:59.999Z"}) {
    ASSERT_TRUE(parseAuditTime(text).has_value()) << text;
    EXPECT_EQ(formatAuditTime(*parseAuditTime(text)), text);
  }
  for (const char* text : {"2025-02-29T00:00:00.000Z", "2026-11-21T24:00:00.000Z", "2026-11-21T07:23:53Z", "", "x"}) {
    EXPECT_FALSE(parseAuditTime(text).has_value()) << text;
  }
}

TEST(AuditChain, FindsAnEdit) {
  auto lines = someLines(5);
  const size_t digit = lines[2].find("1200");
  lines[2][digit] = '9';
  EXPECT_TRUE(contains(check(lines), "3: this line was changed")) << check(lines);
}

TEST(AuditChain, FindsEveryChangedCharacter) {
  const auto good = someLines(3);
  for (size_t i = 0; i < good[1].size(); ++i) {
    auto lines = good;
    lines[1][i] = lines[1][i] == '1' ? '2' : '1';
    EXPECT_FALSE(check(lines).empty()) << i;
  }
}

TEST(AuditChain, FindsDeletionReorderingRepetitionAndForeignLines) {
  const auto good = someLines(6);
  EXPECT_EQ(check(good), "");
  auto lines = good;
  lines.erase(lines.begin() + 2);
  EXPECT_TRUE(contains(check(lines), "3: this is record 4, but record 3 is missing")) << check(lines);
  lines = good;
  lines.erase(lines.begin() + 1, lines.begin() + 3);
  EXPECT_TRUE(contains(check(lines), "2: this is record 4, but records 2 to 3 are missing")) << check(lines);
  lines = good;
  std::swap(lines[2], lines[3]);
  EXPECT_TRUE(contains(check(lines), "3: this is record 4")) << check(lines);
  lines = good;
  lines.insert(lines.begin() + 3, lines[2]);
  EXPECT_TRUE(contains(check(lines), "4: this is record 3, behind record 3")) << check(lines);
  lines = good;
  lines.insert(lines.begin() + 1, "hello");
  EXPECT_TRUE(contains(check(lines), "2: this is not a line")) << check(lines);
}

TEST(AuditChain, FindsALogMadeAnewWithoutTheKey) {
  // Who has the files but not the key makes the chain right, and the macs wrong.
  AuditChain chain;
  AuditKey guessed = AuditKey::random();
  std::vector<std::string> forged;
  for (unsigned i = 1; i <= 3; ++i) {
    AuditRecord record = boxRecord();
    record.seq = i;
    forged.push_back(sealRecord(record, chain, guessed));
  }
  EXPECT_EQ(check(forged), "");
  EXPECT_TRUE(contains(check(forged, true), "1: this line was not written by this vault")) << check(forged, true);
}

TEST(AuditChain, TheKeyOfLaterMakesNoEarlierRecord) {
  // A thief of the state after record 3 has the key of record 4: records 2 and 3 written anew with it are found.
  const auto good = someLines(3);
  EXPECT_EQ(check(good, true), "");
  AuditKey stolen = firstKey();
  for (int i = 0; i < 3; ++i) advance(stolen);
  AuditChecker before(1, {});
  ASSERT_TRUE(before.take(good[0]).has_value());
  AuditChain chain = before.head().chain;
  AuditRecord record = boxRecord("mallory");
  record.seq = 2;
  const std::string forged = sealRecord(record, chain, stolen);
  EXPECT_EQ(check({good[0], forged}), "");
  EXPECT_TRUE(contains(check({good[0], forged}, true), "2: this line was not written"));
}

TEST(AuditHeader, GoesThereAndBackAndMustFollow) {
  AuditHeader header{5, 101, AuditChain()};
  header.previous.mutableSpan()[0] = std::byte{1};
  const auto again = parseHeader(headerLine(header));
  ASSERT_TRUE(again.has_value());
  EXPECT_EQ(again->segment, 5u);
  EXPECT_EQ(again->seq, 101u);
  EXPECT_EQ(again->previous, header.previous);
  EXPECT_FALSE(parseHeader(headerLine({{}, 1, {}}))->segment.has_value());
  for (const char* text : {"", "{}", "{\"audit\":2,\"seq\":1,\"previous\":\"\"}", "{\"audit\":1,\"seq\":0"}) {
    EXPECT_FALSE(parseHeader(text).has_value()) << text;
  }
  EXPECT_TRUE(contains(AuditChecker(100, header.previous).takeHeader(header).error(), "record 100 is missing"));
  EXPECT_TRUE(contains(AuditChecker(102, header.previous).takeHeader(header).error(), "seen before"));
  EXPECT_TRUE(contains(AuditChecker(101, {}).takeHeader(header).error(), "doesn't follow"));
  EXPECT_TRUE(AuditChecker(101, header.previous).takeHeader(header).has_value());
}

TEST(AuditVerifyKey, GoesThereAndBack) {
  const auto key = parseVerifyKey(verifyKeyText(firstKey()));
  ASSERT_TRUE(key.has_value());
  EXPECT_TRUE(equalsConstantTime(key->expose(), firstKey().expose()));
  EXPECT_TRUE(contains(verifyKeyText(firstKey()), "Move it off this host"));
  for (const char* text : {"", "sallyport key 1\n", "sallyport audit key 1\nkey: AAAA\n", "sallyport audit key 1\n"}) {
    EXPECT_FALSE(parseVerifyKey(text).has_value()) << text;
  }
}

}  // namespace
}  // namespace sallyport::vaultd
