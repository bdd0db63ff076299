// Goal: what comes out of a boxed file that somebody had in hands is a beginning of what was boxed, in whole blocks,
// and all of it only if nothing was done to the file; a head is read by the letter. Method: a genuine file, then a
// script of what is done to it; or bytes that are taken for a head.
#include "tests/fuzz/input.h"
#include "tests/sim/dice.h"
#include "tests/unit/file/box_under_test.h"

using namespace sallyport;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  sim::installDice();
  return 0;
}

namespace {

using File = std::vector<std::byte>;

struct Pairs {
  file::test::KeyPair sender, alice, bob;
};

void tryHead(ByteSpan bytes) {
  const auto head = file::parseHead(bytes);
  if (!head) {
    CHECK(!file::describe(head.error()).empty());
    return;
  }
  const auto again = file::writeHead(*head);
  CHECK(std::ranges::equal(again, bytes));
}

// The blocks behind the head, each whole.
std::vector<File> blocksOf(const File& whole, size_t recipients) {
  std::vector<File> blocks;
  ByteSpan rest = ByteSpan(whole).subspan(file::headBytes(recipients));
  while (!rest.empty()) {
    const ByteSpan block = rest.first(std::min(rest.size(), file::blockBytes(recipients)));
    blocks.emplace_back(block.begin(), block.end());
    rest = rest.subspan(block.size());
  }
  return blocks;
}

File joined(ByteSpan head, const std::vector<File>& blocks) {
  File whole(head.begin(), head.end());
  for (const File& block : blocks) whole.insert(whole.end(), block.begin(), block.end());
  return whole;
}

File changedBy(fuzz::Input& script, const File& good, const File& other, size_t recipients) {
  const size_t head = file::headBytes(recipients);
  File whole = good;
  for (int steps = 0; steps < 4 && !script.empty(); ++steps) {
    // Bytes behind a step before this one may make the file longer than heads and blocks say: that is fine.
    if (whole.size() < head) break;
    auto blocks = blocksOf(whole, recipients);
    const auto theirs = blocksOf(other, recipients);
    const auto pick = [&] { return blocks.empty() ? 0 : script.byte() % blocks.size(); };
    ByteSpan top = ByteSpan(whole).first(head);
    switch (script.byte() % 9) {
      case 1: {
        auto& changed = whole[script.word() % whole.size()];
        changed ^= static_cast<std::byte>(script.byte());
        continue;
      }
      case 2: whole.resize(whole.size() - std::min<size_t>(whole.size(), script.word())); continue;
      case 3:
        if (!blocks.empty()) std::swap(blocks[pick()], blocks[pick()]);
        break;
      case 4:
        if (!blocks.empty()) blocks.push_back(blocks[pick()]);
        break;
      case 5:
        if (!blocks.empty()) blocks.erase(blocks.begin() + static_cast<std::ptrdiff_t>(pick()));
        break;
      case 6: {
        const auto more = script.block(script.byte());
        whole.insert(whole.end(), more.begin(), more.end());
        continue;
      }
      case 7: {
        const size_t at = pick();
        if (at < blocks.size() && at < theirs.size()) blocks[at] = theirs[at];
        break;
      }
      case 8: top = ByteSpan(other).first(head); break;
      default: continue;
    }
    whole = joined(top, blocks);
  }
  return whole;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sim::drawnSecrets.clear();
  static const Pairs PAIRS;
  fuzz::Input script(data, size);
  if (script.byte() % 2 == 1) {
    tryHead(script.rest());
    return 0;
  }
  std::vector<PublicKey> to{PAIRS.alice.publicKey};
  if (script.byte() % 2 == 1) to.push_back(PAIRS.bob.publicKey);
  const size_t blocks = script.byte() % 4;
  File text(blocks * file::BLOCK_TEXT_BYTES + script.byte());
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::byte>(i * 7 + i / 251);
  const File good = file::test::sealFile(PAIRS.sender, to, text);
  const File other = file::test::sealFile(PAIRS.sender, to, text);
  const File whole = changedBy(script, good, other, to.size());

  const auto opened = file::test::openFile(PAIRS.alice, whole);
  CHECK(opened.text.size() <= text.size());
  CHECK(std::equal(opened.text.begin(), opened.text.end(), text.begin()));
  if (opened.fault) {
    CHECK(opened.text.size() % file::BLOCK_TEXT_BYTES == 0 && whole != good);
  } else {
    // A file for two may have been changed in the tags of the other recipient: everything else is the sender's.
    CHECK(opened.text.size() == text.size() && (whole == good || whole == other || to.size() == 2));
  }
  return 0;
}
