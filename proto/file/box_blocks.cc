// box_blocks.cc - see box_blocks.h.
#include "proto/file/box_blocks.h"

#include <algorithm>

namespace sallyport::file {
namespace {

constexpr std::string_view STREAM_PERSONAL = "sallyport-box-st";
constexpr size_t ABYTES = crypto_secretstream_xchacha20poly1305_ABYTES;
static_assert(STREAM_PERSONAL.size() == crypto_generichash_blake2b_PERSONALBYTES);
static_assert(STREAM_HEADER_BYTES == crypto_secretstream_xchacha20poly1305_HEADERBYTES);

struct StreamKeyTag;
using StreamKey = SecretBytes<StreamKeyTag, crypto_secretstream_xchacha20poly1305_KEYBYTES>;

// Under this key is one stream with one head: the mac, which all of the head goes into, is part of it.
StreamKey streamKey(const ContentKey& content, const HeadMac& mac) {
  StreamKey key;
  const int done = crypto_generichash_blake2b_salt_personal(key.exposeData(), StreamKey::SIZE, mac.data(),
                                                            HeadMac::SIZE, content.exposeData(), ContentKey::SIZE,
                                                            nullptr, uchars(asBytes(STREAM_PERSONAL)));
  CHECK(done == 0);
  return key;
}

struct BlockTagTag;
using BlockTag = Bytes<BlockTagTag, BLOCK_TAG_BYTES>;

// Binds a block, its place and its being the last to one recipient's tag key.
class BlockTagger {
 public:
  BlockTagger(const StreamHeader& header, uint64_t number, bool last, ByteSpan sealed) {
    auto rest = MutableByteSpan(input_);
    std::ranges::copy(header.span(), rest.begin());
    rest = rest.subspan(StreamHeader::SIZE);
    for (int i = 0; i < 8; ++i) rest[static_cast<size_t>(i)] = static_cast<std::byte>(number >> (56 - 8 * i));
    rest[8] = static_cast<std::byte>(last ? 1 : 0);
    rest = rest.subspan(9);
    crypto_generichash(uchars(rest), rest.size(), uchars(sealed), sealed.size(), nullptr, 0);
  }
  BlockTag tag(const TagKey& key) const {
    BlockTag result;
    crypto_generichash(result.data(), BlockTag::SIZE, uchars(ByteSpan(input_)), input_.size(), key.exposeData(),
                       TagKey::SIZE);
    return result;
  }

 private:
  std::array<std::byte, STREAM_HEADER_BYTES + 9 + 32> input_;
};

}  // namespace

BoxSealer::BoxSealer(const ContentKey& content, const HeadMac& mac, std::vector<TagKey> tagKeys)
    : tagKeys_(std::move(tagKeys)) {
  CHECK(!tagKeys_.empty());
  const StreamKey key = streamKey(content, mac);
  crypto_secretstream_xchacha20poly1305_init_push(state_.expose(), header_.data(), key.exposeData());
}

void BoxSealer::seal(ByteSpan text, bool last, MutableByteSpan block) {
  CHECK(last ? text.size() <= BLOCK_TEXT_BYTES : text.size() == BLOCK_TEXT_BYTES);
  CHECK(block.size() == text.size() + blockOverhead(tagKeys_.size()));
  const MutableByteSpan sealed = block.first(text.size() + ABYTES);
  crypto_secretstream_xchacha20poly1305_push(
      state_.expose(), uchars(sealed), nullptr, uchars(text), text.size(), nullptr, 0,
      last ? crypto_secretstream_xchacha20poly1305_TAG_FINAL : crypto_secretstream_xchacha20poly1305_TAG_MESSAGE);
  if (tagKeys_.size() > 1) {
    const BlockTagger tagger(header_, number_, last, sealed);
    MutableByteSpan rest = block.subspan(sealed.size());
    for (const TagKey& key : tagKeys_) {
      std::ranges::copy(tagger.tag(key).span(), rest.begin());
      rest = rest.subspan(BLOCK_TAG_BYTES);
    }
  }
  ++number_;
}

BoxOpener::BoxOpener(const BoxHead& head, size_t index, FileKeys keys)
    : header_(head.stream), recipients_(head.recipients.size()), index_(index), tagKey_(std::move(keys.tag)) {
  CHECK(index_ < recipients_);
  const StreamKey key = streamKey(keys.content, head.mac);
  crypto_secretstream_xchacha20poly1305_init_pull(state_.expose(), header_.data(), key.exposeData());
}

Result<size_t, BoxFault> BoxOpener::open(ByteSpan block, bool last, MutableByteSpan text) {
  CHECK(text.size() == BLOCK_TEXT_BYTES && !ended_);
  auto opened = tryOpen(block, last, text);
  ended_ = last || !opened;
  ++number_;
  if (!opened) wipe(text);
  return opened;
}

Result<size_t, BoxFault> BoxOpener::tryOpen(ByteSpan block, bool last, MutableByteSpan text) {
  const size_t overhead = blockOverhead(recipients_);
  CHECK(block.size() <= blockBytes(recipients_) && (last || block.size() == blockBytes(recipients_)));
  if (block.size() < overhead) return refuse(BoxFault::CutOff);
  const size_t size = block.size() - overhead;
  const ByteSpan sealed = block.first(size + ABYTES);
  const BoxFault changed = last ? BoxFault::LastChanged : BoxFault::Changed;
  if (recipients_ > 1) {
    // As the sender would have marked it: the two kinds of tag tell a cut and an added end from a change.
    const ByteSpan given = block.subspan(sealed.size() + index_ * BLOCK_TAG_BYTES, BLOCK_TAG_BYTES);
    const auto made = [&](bool asLast) {
      return equalsConstantTime(BlockTagger(header_, number_, asLast, sealed).tag(tagKey_).span(), given);
    };
    if (!made(last)) return refuse(!made(!last) ? changed : last ? BoxFault::CutOff : BoxFault::BytesBehind);
  }
  unsigned char mark = 0;
  if (crypto_secretstream_xchacha20poly1305_pull(state_.expose(), uchars(text), nullptr, &mark, uchars(sealed),
                                                 sealed.size(), nullptr, 0) != 0) {
    return refuse(changed);
  }
  const bool markedLast = mark == crypto_secretstream_xchacha20poly1305_TAG_FINAL;
  if (!markedLast && mark != crypto_secretstream_xchacha20poly1305_TAG_MESSAGE) return refuse(changed);
  if (markedLast != last) return refuse(last ? BoxFault::CutOff : BoxFault::BytesBehind);
  // Each file has one spelling: an empty block is the whole of an empty file.
  if (size == 0 && number_ != 0) return refuse(changed);
  return size;
}

}  // namespace sallyport::file
