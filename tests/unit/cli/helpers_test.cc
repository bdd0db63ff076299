// Goal: the small parts of the CLI: tables, times, JSON, message frames, back-off, patience. Method: values in, values
// out.
#include <gtest/gtest.h>

#include "cli/child.h"
#include "cli/json.h"
#include "cli/message_frames.h"
#include "cli/shown_text.h"
#include "cli/start_patience.h"
#include "cli/terminal.h"

namespace sallyport::cli {
namespace {

std::string text(ByteSpan bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

TEST(Table, AlignsColumnsAndSanitizesCells) {
  Table table({"A", "LONG", "C"});
  EXPECT_TRUE(table.empty());
  table.add({"value", "x", ""});
  table.add({"\x1b[2J", "y", "z"});
  EXPECT_EQ(table.render(" "), " A        LONG  C\n value    x\n \\x1b[2J  y     z\n");
}

TEST(DescribeSeconds, ShowsTheTwoLargestUnits) {
  EXPECT_EQ(describeSeconds(0), "0 s");
  EXPECT_EQ(describeSeconds(59), "59 s");
  EXPECT_EQ(describeSeconds(60), "1 min");
  EXPECT_EQ(describeSeconds(3661), "1 h 1 min");
  EXPECT_EQ(describeSeconds(90061), "1 d 1 h");
}

TEST(ShownText, IsUtf8WithoutControlCharactersInAnyPieces) {
  const auto shown = [](std::string_view text, size_t piece) {
    ShownText judge;
    bool good = true;
    for (size_t at = 0; at < text.size(); at += piece) good = judge.take(asBytes(text.substr(at, piece)));
    return good;
  };
  for (const size_t piece : {1U, 2U, 3U, 100U}) {
    for (const std::string_view good : {"", "text\r\n\ttab", "h\xc3\xa9llo \xe2\x82\xac \xf0\x9f\x94\x91 \xc2\xa0"})
      EXPECT_TRUE(shown(good, piece)) << good;
    for (const std::string_view bad : {"\x1b[2J", "a\x07", "\x7f",
                                       "\xc2\x9b"
                                       "2J",
                                       "\x9b"
                                       "2J",
                                       "\xc3(", "\xff", "\xc0\x80", "\xe2\x28\xa1", "bad\x1b then good"})
      EXPECT_FALSE(shown(bad, piece)) << bad;
    EXPECT_FALSE(shown(std::string_view("a\0b", 3), piece));
  }
}

TEST(Json, WritesNestedValues) {
  JsonWriter json;
  json.beginObject()
      .member("a", "x")
      .key("b")
      .beginArray()
      .value(uint64_t{1})
      .value(true)
      .end()
      .key("c")
      .beginObject()
      .end()
      .end();
  EXPECT_EQ(json.finish(), "{\n  \"a\": \"x\",\n  \"b\": [\n    1,\n    true\n  ],\n  \"c\": {}\n}\n");
}

TEST(Json, EscapesWhatWouldEndAString) {
  JsonWriter json;
  json.value(std::string_view("\"\\\n\0\xff", 5));
  EXPECT_EQ(json.finish(), "\"\\\"\\\\\\u000a\\u0000\\u00ff\"\n");
}

TEST(MessageFrames, HeadersAreBigEndian) {
  EXPECT_EQ(toHex(frameHeader(0)), "00000000");
  EXPECT_EQ(toHex(frameHeader(258)), "00000102");
  EXPECT_EQ(toHex(frameHeader(65503)), "0000ffdf");
  EXPECT_EQ(toHex(frameHeader(MAX_FRAMED_BYTES)), "001ff000");
}

TEST(MessageFrames, ComeBackWholeHoweverTheyAreCut) {
  std::string wire;
  std::vector<std::string> messages = {"", "a", std::string(65503, 'm'), "", "bc"};
  for (const auto& message : messages) wire += text(frameHeader(message.size())) + message;
  for (const size_t step : {size_t{1}, size_t{3}, size_t{4}, size_t{5}, size_t{1000}, wire.size()}) {
    FrameReader reader(65503);
    std::vector<std::string> got;
    for (size_t at = 0; at < wire.size(); at += step) {
      reader.append(asBytes(std::string_view(wire).substr(at, step)));
      while (const auto message = reader.next()) got.push_back(text(*message));
    }
    EXPECT_EQ(got, messages) << step;
    EXPECT_EQ(reader.pending(), 0u);
    EXPECT_EQ(reader.tooLong(), 0u);
  }
}

TEST(MessageFrames, AFrameThatNoMessageHasStopsTheReader) {
  for (const std::string_view header :
       {std::string_view("\x00\x00\xff\xe0", 4), std::string_view("\xff\xff\xff\xff", 4)}) {
    FrameReader reader(65503);
    reader.append(asBytes(std::string_view("\x00\x00\x00\x01x", 5)));
    reader.append(asBytes(header));
    ASSERT_TRUE(reader.next());
    EXPECT_FALSE(reader.next());
    EXPECT_GE(reader.tooLong(), 65504u);
    reader.append(asBytes(std::string_view("\x00\x00\x00\x00", 4)));
    EXPECT_FALSE(reader.next());
  }
}

TEST(MessageFrames, TellAPartThatIsLeft) {
  FrameReader reader(65503);
  reader.append(asBytes(std::string_view("\x00\x00\x00\x02x", 5)));
  EXPECT_FALSE(reader.next());
  EXPECT_EQ(reader.pending(), 5u);
}

TEST(BackOff, DoublesUpToFiveSecondsAndBeginsAgainAfterAGoodRun) {
  BackOff backOff;
  std::vector<uint64_t> pauses;
  for (int i = 0; i < 8; ++i) pauses.push_back(backOff.next(10));
  EXPECT_EQ(pauses, (std::vector<uint64_t>{100, 200, 400, 800, 1600, 3200, 5000, 5000}));
  EXPECT_EQ(backOff.next(999), 5000u);
  EXPECT_EQ(backOff.next(1000), 100u);
  EXPECT_EQ(backOff.next(0), 200u);
}

constexpr uint64_t START_MS = 5000;

TEST(StartPatience, EndsAMinuteAfterConnectionsAreTaken) {
  for (const bool mayAsk : {false, true}) {
    StartPatience patience(START_MS, mayAsk);
    const uint64_t taken = START_MS + 200'000;
    EXPECT_EQ(patience.judge(taken), StartPatience::Verdict::Note);
    patience.connected(taken);
    patience.connected(taken + 59'999);  // a later one gives no further minute
    EXPECT_EQ(patience.judge(taken + 59'999), StartPatience::Verdict::Wait);
    EXPECT_EQ(patience.judge(taken + 60'000), StartPatience::Verdict::GiveUp);
  }
}

TEST(StartPatience, HasNoEndWhileAPassphraseMayBeAskedFor) {
  StartPatience patience(START_MS, true);
  EXPECT_EQ(patience.judge(START_MS + 9'999), StartPatience::Verdict::Wait);
  EXPECT_EQ(patience.judge(START_MS + 10'000), StartPatience::Verdict::Note);
  EXPECT_EQ(patience.judge(START_MS + 86'400'000), StartPatience::Verdict::Wait) << "noted once";
}

TEST(StartPatience, EndsForWhoNeverTakesConnectionsWithNobodyToAsk) {
  StartPatience patience(START_MS, false);
  EXPECT_EQ(patience.judge(START_MS + 299'999), StartPatience::Verdict::Note);
  EXPECT_FALSE(patience.wasConnected());
  EXPECT_EQ(patience.judge(START_MS + 300'000), StartPatience::Verdict::GiveUp);
}

}  // namespace
}  // namespace sallyport::cli
