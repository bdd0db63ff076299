// Goal: a boxed file opens as what was boxed, or fails at the block where it was touched, and nothing of that block
// comes out. Method: whole files in memory; every bit of heads and last blocks, every byte of a full one, every length
// of a cut file.
#include <gtest/gtest.h>

#include "tests/unit/file/box_under_test.h"

namespace sallyport::file {
namespace {

using test::KeyPair;
using test::openFile;
using test::sealFile;

std::vector<std::byte> textOf(size_t size) {
  std::vector<std::byte> text(size);
  for (size_t i = 0; i < size; ++i) text[i] = static_cast<std::byte>(i * 7 + i / 251);
  return text;
}

class BoxFile : public testing::Test {
 protected:
  // The file of `text`, for one recipient or for two.
  std::vector<std::byte> fileFor(size_t recipients, ByteSpan text) const {
    std::vector<PublicKey> keys{alice.publicKey};
    if (recipients == 2) keys.push_back(bob.publicKey);
    return sealFile(sender, keys, text);
  }
  // The whole blocks of `text` before the byte at `offset` of a file for so many.
  static size_t textBefore(size_t offset, size_t recipients) {
    const size_t head = headBytes(recipients);
    return offset < head ? 0 : (offset - head) / blockBytes(recipients) * BLOCK_TEXT_BYTES;
  }
  void expectFault(ByteSpan file, ByteSpan text, size_t before, const char* what, size_t offset) const {
    const auto opened = openFile(alice, file);
    ASSERT_TRUE(opened.fault.has_value()) << what << " at " << offset;
    ASSERT_EQ(opened.text.size(), before) << what << " at " << offset;
    ASSERT_TRUE(std::ranges::equal(opened.text, text.first(before))) << what << " at " << offset;
  }
  // Bits of another recipient's tag are that one's to check.
  static bool isOthers(size_t offset, size_t recipients, size_t fileBytes) {
    if (recipients == 1 || offset < headBytes(recipients)) return false;
    const size_t begin =
        headBytes(recipients) + (offset - headBytes(recipients)) / blockBytes(recipients) * blockBytes(recipients);
    const size_t end = std::min(fileBytes, begin + blockBytes(recipients));
    return offset >= end - BLOCK_TAG_BYTES;  // alice is the first of two
  }

  KeyPair sender, alice, bob;
};

TEST_F(BoxFile, OpensAsWhatWasBoxedInSizesAroundABlock) {
  for (const size_t recipients : {1U, 2U}) {
    for (const size_t size : {size_t{0}, size_t{1}, BLOCK_TEXT_BYTES - 1, BLOCK_TEXT_BYTES, BLOCK_TEXT_BYTES + 1,
                              2 * BLOCK_TEXT_BYTES, 3 * BLOCK_TEXT_BYTES + 5}) {
      const auto text = textOf(size);
      const auto file = fileFor(recipients, text);
      const size_t blocks = std::max(size_t{1}, (size + BLOCK_TEXT_BYTES - 1) / BLOCK_TEXT_BYTES);
      EXPECT_EQ(file.size(), headBytes(recipients) + size + blocks * blockOverhead(recipients));
      const auto opened = openFile(alice, file);
      EXPECT_FALSE(opened.fault.has_value()) << size;
      EXPECT_EQ(opened.text, text);
      EXPECT_EQ(openFile(bob, file).fault.has_value(), recipients == 1);
    }
  }
}

TEST_F(BoxFile, OpensForEachOfManyRecipients) {
  std::vector<KeyPair> all(MAX_RECIPIENTS);
  std::vector<PublicKey> keys;
  for (const auto& each : all) keys.push_back(each.publicKey);
  const auto text = textOf(100);
  const auto file = sealFile(sender, keys, text);
  for (const auto& each : all) EXPECT_EQ(openFile(each, file).text, text);
}

TEST_F(BoxFile, ABitFlippedAnywhereIsFoundBeforeItsBlockComesOut) {
  const auto text = textOf(BLOCK_TEXT_BYTES + 40);
  for (const size_t recipients : {1U, 2U}) {
    const auto good = fileFor(recipients, text);
    const size_t lastBlock = headBytes(recipients) + blockBytes(recipients);
    for (size_t offset = 0; offset < good.size(); ++offset) {
      if (isOthers(offset, recipients, good.size())) continue;
      // Of the full block, one bit of each byte (for two, of every seventh); of head and last block, all eight.
      const bool full = offset >= headBytes(recipients) && offset < lastBlock;
      if (full && recipients == 2 && offset % 7 != 0) continue;
      for (unsigned bit = full ? offset % 8 : 0; bit < (full ? offset % 8 + 1 : 8); ++bit) {
        auto file = good;
        file[offset] ^= static_cast<std::byte>(1U << bit);
        expectFault(file, text, textBefore(offset, recipients), "flip", offset);
      }
      if (HasFatalFailure()) return;
    }
  }
}

TEST_F(BoxFile, ACutAtAnyLengthIsFound) {
  const auto text = textOf(BLOCK_TEXT_BYTES + 40);
  for (const size_t recipients : {1U, 2U}) {
    const auto good = fileFor(recipients, text);
    const size_t firstEnd = headBytes(recipients) + blockBytes(recipients);
    for (size_t length = 0; length < good.size(); ++length) {
      if (recipients == 2 && length > headBytes(2) && length < firstEnd - 100 && length % 7 != 0) continue;
      // Cut right behind a whole block, that block is the last one there is: it says itself that it isn't.
      const size_t before = length <= firstEnd ? 0 : BLOCK_TEXT_BYTES;
      expectFault(ByteSpan(good).first(length), text, before, "cut", length);
      if (HasFatalFailure()) return;
    }
    EXPECT_EQ(openFile(alice, ByteSpan(good).first(firstEnd)).fault, BoxFault::CutOff);
    EXPECT_EQ(openFile(alice, ByteSpan(good).first(headBytes(recipients))).fault, BoxFault::CutOff);
    EXPECT_EQ(openFile(alice, ByteSpan(good).first(30)).fault, BoxFault::CutOff);
    EXPECT_EQ(openFile(alice, ByteSpan(good).first(good.size() - 1)).fault, BoxFault::LastChanged);
  }
}

TEST_F(BoxFile, BytesBehindTheEndAreFound) {
  for (const size_t recipients : {1U, 2U}) {
    const auto text = textOf(BLOCK_TEXT_BYTES + 40);
    auto file = fileFor(recipients, text);
    const auto good = file;
    file.push_back(std::byte{0});
    expectFault(file, text, BLOCK_TEXT_BYTES, "byte behind", 0);
    // A full last block, and then something: it says itself that it is the last.
    const auto whole = textOf(2 * BLOCK_TEXT_BYTES);
    file = fileFor(recipients, whole);
    file.push_back(std::byte{0});
    expectFault(file, whole, BLOCK_TEXT_BYTES, "byte behind a full block", 0);
    EXPECT_EQ(openFile(alice, file).fault, BoxFault::BytesBehind);
  }
}

TEST_F(BoxFile, BlocksMovedRepeatedMissingOrFromElsewhereAreFound) {
  for (const size_t recipients : {1U, 2U}) {
    const auto text = textOf(3 * BLOCK_TEXT_BYTES + 9);
    const auto good = fileFor(recipients, text);
    const auto other = fileFor(recipients, text);
    const size_t head = headBytes(recipients);
    const size_t size = blockBytes(recipients);
    const auto blockOf = [&](const auto& file, size_t i) {
      return ByteSpan(file).subspan(head + i * size, i == 3 ? file.size() - head - 3 * size : size);
    };
    const auto build = [&](std::initializer_list<ByteSpan> blocks) {
      std::vector<std::byte> file(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(head));
      for (const auto block : blocks) file.insert(file.end(), block.begin(), block.end());
      return file;
    };
    const auto b = [&](size_t i) { return blockOf(good, i); };
    EXPECT_EQ(build({b(0), b(1), b(2), b(3)}), good);
    expectFault(build({b(1), b(0), b(2), b(3)}), text, 0, "swapped", 0);
    expectFault(build({b(0), b(2), b(1), b(3)}), text, BLOCK_TEXT_BYTES, "swapped", 1);
    expectFault(build({b(0), b(2), b(3)}), text, BLOCK_TEXT_BYTES, "missing", 1);
    expectFault(build({b(0), b(1), b(3)}), text, 2 * BLOCK_TEXT_BYTES, "missing", 2);
    expectFault(build({b(0), b(1), b(1), b(2), b(3)}), text, 2 * BLOCK_TEXT_BYTES, "repeated", 2);
    expectFault(build({b(3)}), text, 0, "the end alone", 0);
    expectFault(build({b(0), blockOf(other, 1), b(2), b(3)}), text, BLOCK_TEXT_BYTES, "from elsewhere", 1);
    expectFault(build({b(0), b(1), b(2), blockOf(other, 3)}), text, 3 * BLOCK_TEXT_BYTES, "end from elsewhere", 3);
  }
}

TEST_F(BoxFile, ABoxOfOneFileIsOfNoUseInAnother) {
  // Bob was a recipient beside Alice, and knows all keys but her tag key. He leaves himself out of the list.
  const auto file = fileFor(2, textOf(10));
  const auto head = parseHead(ByteSpan(file).first(headBytes(2)));
  ASSERT_TRUE(head.has_value());
  BoxHead alone = *head;
  alone.recipients.pop_back();
  auto forged = writeHead(alone);
  forged.insert(forged.end(), 17 + 10, std::byte{0});
  EXPECT_EQ(openFile(alice, forged).fault, BoxFault::BadHead);
  // Nor does a box of another program open as keys.
  std::array<std::byte, BOX_TEXT_BYTES> any{};
  EXPECT_EQ(fileKeys(*head, any).error(), BoxFault::ForeignText);
  EXPECT_EQ(fileKeys(*head, ByteSpan(any).first(40)).error(), BoxFault::ForeignText);
}

TEST_F(BoxFile, HeadsThatNobodyWritesAreRefused) {
  const auto good = fileFor(2, {});
  const auto head = ByteSpan(good).first(headBytes(2));
  ASSERT_TRUE(parseHead(head).has_value());
  const auto fault = [](std::vector<std::byte> bytes) { return parseHead(bytes).error(); };
  const auto changed = [&](size_t at, unsigned char value) {
    std::vector<std::byte> bytes(head.begin(), head.end());
    bytes[at] = static_cast<std::byte>(value);
    return bytes;
  };
  EXPECT_EQ(fault(changed(0, 'S')), BoxFault::NotABox);
  EXPECT_EQ(fault(changed(14, '2')), BoxFault::OtherFormat);
  EXPECT_EQ(fault(changed(52, 0)), BoxFault::BadHead);
  EXPECT_EQ(fault(changed(52, 65)), BoxFault::BadHead);
  EXPECT_EQ(fault(changed(52, 3)), BoxFault::CutOff);
  EXPECT_EQ(fault(changed(52, 1)), BoxFault::BadHead);
  EXPECT_EQ(fault({}), BoxFault::NotABox);
  std::vector<std::byte> twice(head.begin(), head.end());
  std::copy_n(twice.begin() + 53, 32, twice.begin() + 85);
  EXPECT_EQ(fault(twice), BoxFault::BadHead);
  EXPECT_EQ(writeHead(*parseHead(head)), std::vector<std::byte>(head.begin(), head.end()));
}

TEST_F(BoxFile, NoTwoFilesAreAlike) {
  const auto text = textOf(64);
  const auto one = fileFor(1, text);
  const auto two = fileFor(1, text);
  const auto tail = [](const auto& file) { return std::vector<std::byte>(file.begin() + 85, file.end()); };
  EXPECT_NE(tail(one), tail(two));
}

}  // namespace
}  // namespace sallyport::file
