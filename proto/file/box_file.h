// box_file.h - the head of a boxed file, and the keys that its boxes carry. Part of: proto/file (pure; any process).
// docs/protocol.md §11. A file has one random content key; what the vault boxes is that key, once for each recipient.
// Nothing in here sees a long-term secret. The blocks behind the head: box_blocks.h.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "common/bytes.h"
#include "common/result.h"
#include "common/secret_bytes.h"

namespace sallyport::file {

inline constexpr std::string_view BOX_MAGIC = "sallyport box 1\n";
inline constexpr size_t MAX_RECIPIENTS = 64;  // as many items as a call of the vault takes
inline constexpr size_t TAG_KEY_BYTES = 32;
// Magic, hash of the list, content key, tag key: what is boxed to a recipient.
inline constexpr size_t BOX_TEXT_BYTES = BOX_MAGIC.size() + 32 + 32 + TAG_KEY_BYTES;
inline constexpr size_t BOX_BYTES = BOX_TEXT_BYTES + 16;
inline constexpr size_t STREAM_HEADER_BYTES = 24;
// Magic, version and key of the sender, count: how much of a head tells its whole size.
inline constexpr size_t HEAD_START_BYTES = BOX_MAGIC.size() + 4 + 32 + 1;
constexpr size_t headBytes(size_t recipients) {
  return HEAD_START_BYTES + recipients * (32 + 16 + BOX_BYTES) + 32 + STREAM_HEADER_BYTES;
}

enum class BoxFault : uint8_t {
  NotABox,      // doesn't begin as one
  OtherFormat,  // begins as one of another version of the format
  BadHead,      // a head that nobody writes, or that was changed
  ForeignText,  // the box is genuine, but carries something else than this file's keys
  Changed,      // a block doesn't open
  LastChanged,  // the last one doesn't: it was changed, or the file is cut off in it
  CutOff,       // ends where no file ends
  BytesBehind,  // goes on behind its end
};
// In words: "was changed".
std::string_view describe(BoxFault fault);

struct ContentKeyTag;
using ContentKey = SecretBytes<ContentKeyTag, 32>;
struct TagKeyTag;
// Known to the sender and one recipient: what the other recipients can't forge.
using TagKey = SecretBytes<TagKeyTag, TAG_KEY_BYTES>;
struct BoxTextTag;
using BoxText = SecretBytes<BoxTextTag, BOX_TEXT_BYTES>;
struct HeadMacTag;
using HeadMac = Bytes<HeadMacTag, 32>;
struct StreamHeaderTag;
using StreamHeader = Bytes<StreamHeaderTag, STREAM_HEADER_BYTES>;
struct FileBoxTag;
using FileBox = Bytes<FileBoxTag, BOX_BYTES>;

struct Recipient {
  PublicKey key;
  LongNonceBytes nonce;  // behind "SallyBox"
  FileBox box;
};
struct BoxHead {
  uint32_t senderVersion = 0;  // of the sender's key; for people
  PublicKey sender;
  std::vector<Recipient> recipients;  // 1 to MAX_RECIPIENTS, no key twice
  HeadMac mac;
  StreamHeader stream;
};

// The size of the whole head, from its first HEAD_START_BYTES (fewer: CutOff, if they are the beginning of one).
Result<size_t, BoxFault> headSize(ByteSpan start);
// Exactly one head. What is taken is written again as the same bytes.
Result<BoxHead, BoxFault> parseHead(ByteSpan bytes);
std::vector<std::byte> writeHead(const BoxHead& head);

// The text to box to one recipient. It names sender and recipients (those of `head`, whose boxes needn't be there yet):
// so a box of one file is of no use in another one.
BoxText boxText(const BoxHead& head, const ContentKey& content, const TagKey& tag);
// Binds every byte of the head before it to the content key.
HeadMac headMac(const BoxHead& head, const ContentKey& content);

struct FileKeys {
  ContentKey content;
  TagKey tag;
};
// What came out of a recipient's box, if it is of this file and the head is as the sender wrote it.
Result<FileKeys, BoxFault> fileKeys(const BoxHead& head, ByteSpan openedText);

}  // namespace sallyport::file
