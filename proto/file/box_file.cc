// box_file.cc - see box_file.h.
#include "proto/file/box_file.h"

#include <sodium.h>

#include <algorithm>
#include <set>

namespace sallyport::file {
namespace {

constexpr std::string_view MAC_PERSONAL = "sallyport-box-hd";
constexpr std::string_view ANY_FORMAT = "sallyport box ";
static_assert(MAC_PERSONAL.size() == crypto_generichash_blake2b_PERSONALBYTES);

void put(std::vector<std::byte>& out, ByteSpan bytes) { out.insert(out.end(), bytes.begin(), bytes.end()); }

// Magic, sender, and the recipients' keys: what is known before anything is boxed.
std::vector<std::byte> writeList(const BoxHead& head) {
  CHECK(!head.recipients.empty() && head.recipients.size() <= MAX_RECIPIENTS);
  std::vector<std::byte> out;
  put(out, asBytes(BOX_MAGIC));
  for (const int shift : {24, 16, 8, 0}) out.push_back(static_cast<std::byte>(head.senderVersion >> shift));
  put(out, head.sender.span());
  out.push_back(static_cast<std::byte>(head.recipients.size()));
  for (const Recipient& recipient : head.recipients) put(out, recipient.key.span());
  return out;
}

std::vector<std::byte> writeBeforeMac(const BoxHead& head) {
  auto out = writeList(head);
  for (const Recipient& recipient : head.recipients) {
    put(out, recipient.nonce.span());
    put(out, recipient.box.span());
  }
  return out;
}

std::array<std::byte, 32> listHash(const BoxHead& head) {
  const auto list = writeList(head);
  std::array<std::byte, 32> hash;
  crypto_generichash(uchars(MutableByteSpan(hash)), hash.size(), uchars(list), list.size(), nullptr, 0);
  return hash;
}

// Cuts the next bytes off a head whose size has been checked.
class Fields {
 public:
  explicit Fields(ByteSpan bytes) : rest_(bytes) {}
  ByteSpan take(size_t size) {
    CHECK(size <= rest_.size());
    const ByteSpan field = rest_.first(size);
    rest_ = rest_.subspan(size);
    return field;
  }

 private:
  ByteSpan rest_;
};

}  // namespace

std::string_view describe(BoxFault fault) {
  switch (fault) {
    case BoxFault::NotABox: return "is not a boxed file";
    case BoxFault::OtherFormat: return "is a boxed file of another format than this program knows";
    case BoxFault::BadHead: return "was changed: its head is not as the sender wrote it";
    case BoxFault::ForeignText: return "holds a box that was made for something else";
    case BoxFault::Changed: return "was changed";
    case BoxFault::LastChanged: return "is cut off, or was changed near its end";
    case BoxFault::CutOff: return "is cut off: its end is missing";
    case BoxFault::BytesBehind: return "goes on behind its end";
  }
  return "can't be opened";
}

Result<size_t, BoxFault> headSize(ByteSpan start) {
  const ByteSpan magic = asBytes(BOX_MAGIC);
  const size_t known = std::min(start.size(), magic.size());
  if (!std::ranges::equal(start.first(known), magic.first(known))) {
    const ByteSpan any = asBytes(ANY_FORMAT);
    const bool other = start.size() >= any.size() && std::ranges::equal(start.first(any.size()), any);
    return refuse(other ? BoxFault::OtherFormat : BoxFault::NotABox);
  }
  if (start.empty()) return refuse(BoxFault::NotABox);
  if (start.size() < HEAD_START_BYTES) return refuse(BoxFault::CutOff);
  const auto count = static_cast<size_t>(start[HEAD_START_BYTES - 1]);
  if (count == 0 || count > MAX_RECIPIENTS) return refuse(BoxFault::BadHead);
  return headBytes(count);
}

Result<BoxHead, BoxFault> parseHead(ByteSpan bytes) {
  const auto size = headSize(bytes.first(std::min(bytes.size(), HEAD_START_BYTES)));
  if (!size) return refuse(size.error());
  if (bytes.size() < *size) return refuse(BoxFault::CutOff);
  if (bytes.size() > *size) return refuse(BoxFault::BadHead);

  BoxHead head;
  Fields fields(bytes);
  fields.take(BOX_MAGIC.size());
  for (const std::byte each : fields.take(4))
    head.senderVersion = head.senderVersion << 8 | static_cast<uint32_t>(each);
  head.sender = PublicKey(fields.take(PublicKey::SIZE));
  head.recipients.resize(static_cast<size_t>(fields.take(1)[0]));
  std::set<PublicKey> seen;
  for (Recipient& recipient : head.recipients) {
    recipient.key = PublicKey(fields.take(PublicKey::SIZE));
    if (!seen.insert(recipient.key).second) return refuse(BoxFault::BadHead);
  }
  for (Recipient& recipient : head.recipients) {
    recipient.nonce = LongNonceBytes(fields.take(LongNonceBytes::SIZE));
    recipient.box = FileBox(fields.take(FileBox::SIZE));
  }
  head.mac = HeadMac(fields.take(HeadMac::SIZE));
  head.stream = StreamHeader(fields.take(StreamHeader::SIZE));
  return head;
}

std::vector<std::byte> writeHead(const BoxHead& head) {
  auto out = writeBeforeMac(head);
  put(out, head.mac.span());
  put(out, head.stream.span());
  CHECK(out.size() == headBytes(head.recipients.size()));
  return out;
}

BoxText boxText(const BoxHead& head, const ContentKey& content, const TagKey& tag) {
  BoxText text;
  auto rest = MutableByteSpan(text.exposeMutable());
  const auto hash = listHash(head);
  for (const ByteSpan part : {asBytes(BOX_MAGIC), ByteSpan(hash), ByteSpan(content.expose()), ByteSpan(tag.expose())}) {
    std::ranges::copy(part, rest.begin());
    rest = rest.subspan(part.size());
  }
  CHECK(rest.empty());
  return text;
}

HeadMac headMac(const BoxHead& head, const ContentKey& content) {
  const auto bytes = writeBeforeMac(head);
  HeadMac mac;
  const int done = crypto_generichash_blake2b_salt_personal(mac.data(), HeadMac::SIZE, uchars(bytes), bytes.size(),
                                                            content.exposeData(), ContentKey::SIZE, nullptr,
                                                            uchars(asBytes(MAC_PERSONAL)));
  CHECK(done == 0);
  return mac;
}

Result<FileKeys, BoxFault> fileKeys(const BoxHead& head, ByteSpan openedText) {
  if (openedText.size() != BOX_TEXT_BYTES) return refuse(BoxFault::ForeignText);
  Fields fields(openedText);
  if (!std::ranges::equal(fields.take(BOX_MAGIC.size()), asBytes(BOX_MAGIC))) return refuse(BoxFault::ForeignText);
  if (!std::ranges::equal(fields.take(32), listHash(head))) return refuse(BoxFault::BadHead);
  FileKeys keys{ContentKey(fields.take(ContentKey::SIZE)), TagKey(fields.take(TagKey::SIZE))};
  if (!equalsConstantTime(headMac(head, keys.content).span(), head.mac.span())) return refuse(BoxFault::BadHead);
  return keys;
}

}  // namespace sallyport::file
