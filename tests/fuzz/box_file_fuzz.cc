// Goal: what comes out of a boxed file that somebody had in hands is a beginning of what was boxed, in whole blocks,
// and all of it only if nothing was done to the file; a head and a text are read by the letter. Method: a genuine file,
// then a script of what is done to it; or bytes that are taken for a head, or for a file as text.
#include "proto/file/armor.h"
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

// Bytes that are taken for text: what is read goes on from piece to piece, and is written again as the same text but
// for line ends.
void tryArmor(fuzz::Input& script) {
  const size_t piece = 1 + script.byte();
  const ByteSpan all = script.rest();
  std::string_view text(reinterpret_cast<const char*>(all.data()), all.size());
  file::ArmorReader whole, pieces;
  File atOnce, onward;
  auto done = whole.read(text, atOnce);
  if (done) done = whole.finish(atOnce);
  for (std::string_view rest = text; !rest.empty(); rest.remove_prefix(std::min(piece, rest.size()))) {
    if (!pieces.read(rest.substr(0, piece), onward)) break;
  }
  const auto again = pieces.finish(onward);
  CHECK(done.has_value() == again.has_value() && (done || done.error() == again.error()) && atOnce == onward);
  if (!done) {
    CHECK(!file::describe(done.error()).empty());
    return;
  }
  file::ArmorWriter writer;
  std::string written = writer.write(atOnce);
  written += writer.finish();
  std::string plain;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\r') plain += text[i];
  }
  if (!plain.ends_with('\n')) plain += '\n';
  CHECK(written == plain);
}

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

// `other` is another file of the same text to the same recipients, made when it is needed: sealing is most of a run.
template <typename MakeOther>
File changedBy(fuzz::Input& script, const File& good, File& other, MakeOther&& makeOther, size_t recipients) {
  const size_t head = file::headBytes(recipients);
  File whole = good;
  for (int steps = 0; steps < 4 && !script.empty(); ++steps) {
    // Bytes behind a step before this one may make the file longer than heads and blocks say: that is fine.
    if (whole.size() < head) break;
    auto blocks = blocksOf(whole, recipients);
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
        if (other.empty()) other = makeOther();
        const auto theirs = blocksOf(other, recipients);
        const size_t at = pick();
        if (at < blocks.size() && at < theirs.size()) blocks[at] = theirs[at];
        break;
      }
      case 8:
        if (other.empty()) other = makeOther();
        top = ByteSpan(other).first(head);
        break;
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
  const auto mode = script.byte();
  if (mode % 4 == 3) {
    tryArmor(script);
    return 0;
  }
  if (mode % 2 == 1) {
    tryHead(script.rest());
    return 0;
  }
  std::vector<PublicKey> to{PAIRS.alice.publicKey};
  if (script.byte() % 2 == 1) to.push_back(PAIRS.bob.publicKey);
  const size_t blocks = script.byte() % 4;
  File text(blocks * file::BLOCK_TEXT_BYTES + script.byte());
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::byte>(i * 7 + i / 251);
  const auto make = [&] { return file::test::sealFile(PAIRS.sender, to, text); };
  const File good = make();
  File other;
  const File whole = changedBy(script, good, other, make, to.size());

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
