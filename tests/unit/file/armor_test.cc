// Goal: a boxed file as text comes back as it was, however the text is cut, and no other text is taken.
#include "proto/file/armor.h"

#include <gtest/gtest.h>

#include "common/secret_bytes.h"

namespace sallyport::file {
namespace {

using Bytes = std::vector<std::byte>;

Bytes some(size_t size) {
  Bytes bytes(size);
  for (size_t i = 0; i < size; ++i) bytes[i] = static_cast<std::byte>(i * 7 + i / 251);
  return bytes;
}

std::string armored(ByteSpan bytes, size_t piece = SIZE_MAX) {
  ArmorWriter writer;
  std::string text;
  for (; bytes.size() > piece; bytes = bytes.subspan(piece)) text += writer.write(bytes.first(piece));
  text += writer.write(bytes);
  return text + writer.finish();
}

struct Read {
  Bytes bytes;
  std::optional<ArmorFault> fault;
};
Read read(std::string_view text, size_t piece = SIZE_MAX) {
  ArmorReader reader;
  Read result;
  for (; !text.empty() && !result.fault; text.remove_prefix(std::min(piece, text.size()))) {
    if (const auto taken = reader.read(text.substr(0, piece), result.bytes); !taken) result.fault = taken.error();
  }
  // Also after a fault: it stays.
  const auto finished = reader.finish(result.bytes);
  EXPECT_EQ(result.fault.has_value(), result.fault && !finished && finished.error() == *result.fault);
  if (!finished) result.fault = finished.error();
  return result;
}
ArmorFault fault(std::string_view text) {
  const Read result = read(text);
  EXPECT_TRUE(result.fault.has_value()) << text;
  for (const size_t piece : {1u, 7u, 64u}) EXPECT_EQ(read(text, piece).fault, result.fault) << text;
  return result.fault.value_or(ArmorFault{});
}

const std::string BEGIN = std::string(ARMOR_BEGIN) + "\n";
const std::string END = std::string(ARMOR_END) + "\n";

TEST(Armor, HasSixtyFourLettersALine) {
  EXPECT_EQ(armored(some(50)),
            BEGIN + toBase64(ByteSpan(some(48))) + "\n" + toBase64(ByteSpan(some(50)).last(2)) + "\n" + END);
  EXPECT_EQ(toBase64(some(48)).size(), 64u);
  EXPECT_EQ(armored(some(48)), BEGIN + toBase64(some(48)) + "\n" + END);
  EXPECT_EQ(armored({}), BEGIN + END);
}

TEST(Armor, ComesBackHoweverItIsCut) {
  for (const size_t size : {0u, 1u, 2u, 3u, 47u, 48u, 49u, 96u, 1000u}) {
    const std::string text = armored(some(size));
    for (const size_t piece : {1u, 5u, 48u, 65u}) {
      EXPECT_EQ(armored(some(size), piece), text);
      const Read result = read(text, piece);
      EXPECT_FALSE(result.fault.has_value()) << size;
      EXPECT_EQ(result.bytes, some(size));
    }
  }
}

TEST(Armor, ComesBackFromMail) {
  std::string text = armored(some(100)), mailed;
  for (const char c : text) mailed += c == '\n' ? "\r\n" : std::string(1, c);
  EXPECT_EQ(read(mailed).bytes, some(100));
  EXPECT_FALSE(read(mailed).fault.has_value());
  text.pop_back();  // pasted without its last end of line
  EXPECT_FALSE(read(text).fault.has_value());
}

TEST(Armor, IsRefusedCutAnywhere) {
  const std::string text = armored(some(100));
  for (size_t size = 0; size < text.size() - 1; ++size) {
    const ArmorFault got = fault(text.substr(0, size));
    if (size <= ARMOR_BEGIN.size()) {
      // The whole first line with nothing behind is cut off, a part of it is something else.
      EXPECT_EQ(got, size == ARMOR_BEGIN.size() ? ArmorFault::CutOff : ArmorFault::NotArmor) << size;
    } else {
      EXPECT_TRUE(got == ArmorFault::CutOff || got == ArmorFault::BadLine) << size;
    }
  }
}

TEST(Armor, IsTakenInOneSpelling) {
  const std::string line = toBase64(some(48)) + "\n";
  EXPECT_EQ(fault(BEGIN + "\n" + END), ArmorFault::BadLine);
  EXPECT_EQ(fault(BEGIN + " " + line + END), ArmorFault::BadLine);
  EXPECT_EQ(fault(BEGIN + line.substr(0, 63) + " \n" + END), ArmorFault::BadLine);
  EXPECT_EQ(fault(BEGIN + line.substr(0, 63) + "\n" + END), ArmorFault::BadLine) << "a letter is missing";
  EXPECT_EQ(fault(BEGIN + line.substr(0, 60) + "\n" + line + END), ArmorFault::BadLine)
      << "a short line before the last";
  EXPECT_EQ(fault(BEGIN + toBase64(some(51)) + "\n" + END), ArmorFault::BadLine) << "a long line";
  EXPECT_EQ(fault(BEGIN + "AA\n" + END), ArmorFault::BadLine) << "padding is missing";
  EXPECT_EQ(fault(BEGIN + "AB==\n" + END), ArmorFault::BadLine) << "bits behind the last byte";
  EXPECT_EQ(fault(BEGIN + "A-_A\n" + END), ArmorFault::BadLine) << "another alphabet";
  EXPECT_EQ(fault(BEGIN + line + "-----END PGP MESSAGE-----\n"), ArmorFault::BadLine);
  EXPECT_EQ(fault(BEGIN + line + END + "\n"), ArmorFault::BytesBehind);
  EXPECT_EQ(fault(BEGIN + line + END + BEGIN), ArmorFault::BytesBehind);
  EXPECT_EQ(fault("\n" + BEGIN + line + END), ArmorFault::NotArmor);
  EXPECT_EQ(fault("-----BEGIN PGP MESSAGE-----\n" + line + END), ArmorFault::NotArmor);
}

TEST(Armor, KeepsNoMoreThanALineOfWhatComes) {
  EXPECT_EQ(fault(std::string(1 << 20, '-')), ArmorFault::NotArmor);
  EXPECT_EQ(fault(BEGIN + std::string(1 << 20, 'A')), ArmorFault::BadLine);
}

}  // namespace
}  // namespace sallyport::file
