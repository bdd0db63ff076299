// box_under_test.h - whole boxed files in memory, with NaCl keys of the test's own in the vault's place. For tests and
// fuzzers of proto/file.
#pragma once

#include <algorithm>
#include <string_view>
#include <vector>

#include "proto/file/box_blocks.h"

namespace sallyport::file::test {

struct PairTag;
struct KeyPair {
  PublicKey publicKey;
  SecretBytes<PairTag, 32> secret;
  KeyPair() { crypto_box_keypair(publicKey.data(), secret.exposeData()); }
};

inline std::array<unsigned char, 24> nonceOf(const LongNonceBytes& nonce) {
  std::array<unsigned char, 24> whole{'S', 'a', 'l', 'l', 'y', 'B', 'o', 'x'};
  std::copy(nonce.data(), nonce.data() + LongNonceBytes::SIZE, whole.begin() + 8);
  return whole;
}

inline std::vector<std::byte> sealFile(const KeyPair& sender, const std::vector<PublicKey>& recipients, ByteSpan text) {
  BoxHead head;
  head.sender = sender.publicKey;
  head.senderVersion = 3;
  for (const PublicKey& key : recipients) head.recipients.push_back({key, {}, {}});
  const auto content = ContentKey::random();
  std::vector<TagKey> tags;
  for (Recipient& recipient : head.recipients) {
    tags.push_back(TagKey::random());
    fillRandom(recipient.nonce.mutableSpan());
    const auto boxed = boxText(head, content, tags.back());
    const int done = crypto_box_easy(recipient.box.data(), boxed.exposeData(), BOX_TEXT_BYTES,
                                     nonceOf(recipient.nonce).data(), recipient.key.data(), sender.secret.exposeData());
    CHECK(done == 0);
  }
  head.mac = headMac(head, content);
  BoxSealer sealer(content, head.mac, std::move(tags));
  head.stream = sealer.header();
  auto file = writeHead(head);
  for (bool last = false; !last;) {
    const ByteSpan part = text.first(std::min(text.size(), BLOCK_TEXT_BYTES));
    text = text.subspan(part.size());
    last = text.empty();
    const size_t at = file.size();
    file.resize(at + part.size() + blockOverhead(recipients.size()));
    sealer.seal(part, last, MutableByteSpan(file).subspan(at));
  }
  return file;
}

// What came out before the end or the fault.
struct Opened {
  std::vector<std::byte> text;
  std::optional<BoxFault> fault;
};

inline Opened openFile(const KeyPair& recipient, ByteSpan file) {
  const auto size = headSize(file.first(std::min(file.size(), HEAD_START_BYTES)));
  if (!size) return {{}, size.error()};
  const auto head = parseHead(file.first(std::min(file.size(), *size)));
  if (!head) return {{}, head.error()};
  const auto found = std::ranges::find(head->recipients, recipient.publicKey, &Recipient::key);
  if (found == head->recipients.end()) return {{}, BoxFault::BadHead};
  std::array<std::byte, BOX_TEXT_BYTES> boxed;
  if (crypto_box_open_easy(uchars(MutableByteSpan(boxed)), found->box.data(), BOX_BYTES, nonceOf(found->nonce).data(),
                           head->sender.data(), recipient.secret.exposeData()) != 0) {
    return {{}, BoxFault::BadHead};
  }
  auto keys = fileKeys(*head, boxed);
  if (!keys) return {{}, keys.error()};
  BoxOpener opener(*head, static_cast<size_t>(found - head->recipients.begin()), std::move(*keys));
  ByteSpan rest = file.subspan(*size);
  Opened result;
  std::vector<std::byte> buffer(BLOCK_TEXT_BYTES);
  for (bool last = false; !last;) {
    const ByteSpan block = rest.first(std::min(rest.size(), blockBytes(head->recipients.size())));
    rest = rest.subspan(block.size());
    last = rest.empty();
    const auto opened = opener.open(block, last, buffer);
    if (!opened) {
      CHECK(std::ranges::all_of(buffer, [](std::byte byte) { return byte == std::byte{0}; }));
      result.fault = opened.error();
      return result;
    }
    result.text.insert(result.text.end(), buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(*opened));
  }
  return result;
}

}  // namespace sallyport::file::test
