// link.cc - see link.h. The header layout is Cap'n Proto's stream framing: le32 segments-1, then a le32 word count for
// each segment, padded to 8 bytes, then the segments.
#include "common/link.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <kj/debug.h>

#include "common/secret_bytes.h"

namespace sallyport {

namespace {

constexpr size_t WORD = sizeof(capnp::word);
constexpr size_t READ_CHUNK = 16 * 1024;
constexpr size_t KEEP_BYTES = 16 * 1024;  // an idle link keeps no more than this per direction

uint32_t le32(const std::byte* p) {
  uint32_t value;
  std::memcpy(&value, p, sizeof value);
  return le32toh(value);
}

// What the stream's head says. Nothing is allocated before this has been judged.
struct Header {
  size_t headerBytes = 0;
  size_t messageBytes = 0;  // header included
  unsigned segments = 0;
  enum { NeedMore, Bad, TooBig, Complete } state = NeedMore;
};

Header parseHeader(ByteSpan bytes, const LinkLimits& limits) {
  Header header;
  if (bytes.size() < 4) return header;
  // Checked before the +1: 0xFFFFFFFF would wrap.
  const uint32_t last = le32(bytes.data());
  if (last >= limits.maxSegments) {
    header.state = Header::Bad;
    return header;
  }
  header.segments = last + 1;
  header.headerBytes = (4 + 4 * size_t{header.segments} + WORD - 1) / WORD * WORD;
  if (bytes.size() < header.headerBytes) return header;
  size_t words = 0;
  for (unsigned i = 0; i < header.segments; ++i) {
    const size_t size = le32(bytes.data() + 4 + 4 * size_t{i});
    if (size > limits.maxMessageBytes / WORD || words + size > limits.maxMessageBytes / WORD) {
      header.state = Header::TooBig;
      return header;
    }
    words += size;
  }
  header.messageBytes = header.headerBytes + words * WORD;
  header.state = Header::Complete;
  return header;
}

// Owns a copy of one message, aligned, and wipes it: plaintext and vouches pass through here.
class OwnedMessage final : public capnp::MessageReader {
 public:
  OwnedMessage(ByteSpan bytes, const Header& header, capnp::ReaderOptions limits)
      : capnp::MessageReader(limits),
        words_((header.messageBytes - header.headerBytes) / WORD),
        segments_(header.segments) {
    if (!words_.empty()) std::memcpy(words_.data(), bytes.data() + header.headerBytes, words_.size() * WORD);
    size_t offset = 0;
    for (unsigned i = 0; i < header.segments; ++i) {
      const size_t size = le32(bytes.data() + 4 + 4 * size_t{i});
      segments_[i] = {reinterpret_cast<const capnp::word*>(words_.data()) + offset, size};
      offset += size;
    }
  }
  ~OwnedMessage() noexcept(false) { wipe(std::as_writable_bytes(std::span(words_))); }

  kj::ArrayPtr<const capnp::word> getSegment(uint id) override {
    if (id >= segments_.size()) return nullptr;
    return kj::arrayPtr(segments_[id].data, segments_[id].size);
  }

 private:
  struct Segment {
    const capnp::word* data = nullptr;
    size_t size = 0;
  };
  std::vector<uint64_t> words_;
  std::vector<Segment> segments_;
};

}  // namespace

std::string_view name(CutOff reason) {
  switch (reason) {
    case CutOff::None: return "none";
    case CutOff::BadHeader: return "bad_header";
    case CutOff::TooBig: return "too_big";
    case CutOff::BadMessage: return "bad_message";
    case CutOff::TooManyCalls: return "too_many_calls";
    case CutOff::CapabilityInParams: return "capability_in_params";
    case CutOff::SlowReader: return "slow_reader";
  }
  return "unknown";
}

Link::Link(EventLoop& loop, int fd, LinkSide side, LinkLimits limits)
    : loop_(loop), fd_(fd), side_(side), limits_(limits), alive_(std::make_shared<bool>(true)) {
  loop_.add(fd_, interest_ = EPOLLIN, *this);
}

Link::~Link() noexcept(false) {
  *alive_ = false;
  loop_.remove(fd_, *this);
  close(fd_);
  wipe(in_);
  wipe(out_);
}

void Link::onEvents(uint32_t events) {
  if ((events & EPOLLOUT) != 0) flush();
  if ((events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0 && !eof_ && !broken_) readAvailable();
}

void Link::readAvailable() {
  // Make room for what is missing of the current message, but never more than one message and a chunk.
  size_t want = READ_CHUNK;
  const Header header = parseHeader(ByteSpan(in_).subspan(inStart_, inEnd_ - inStart_), limits_);
  if (header.state == Header::Complete && header.messageBytes > inEnd_ - inStart_) {
    want = std::max(want, header.messageBytes - (inEnd_ - inStart_));
  }
  if (inStart_ > 0 && in_.size() - inEnd_ < want) {
    std::memmove(in_.data(), in_.data() + inStart_, inEnd_ - inStart_);
    inEnd_ -= inStart_;
    inStart_ = 0;
  }
  if (in_.size() - inEnd_ < want) {
    std::vector<std::byte> larger(inEnd_ + want);
    if (inEnd_ > 0) std::memcpy(larger.data(), in_.data(), inEnd_);
    wipe(in_);
    in_ = std::move(larger);
  }
  const ssize_t got = ::read(fd_, in_.data() + inEnd_, in_.size() - inEnd_);
  if (got < 0) {
    if (errno == EAGAIN || errno == EINTR) return;
    eof_ = true;
  } else if (got == 0) {
    eof_ = true;
  } else {
    inEnd_ += static_cast<size_t>(got);
  }
  deliver();
  updateInterest();
}

void Link::deliver() {
  KJ_IF_MAYBE (fulfiller, reading_) {
    const ByteSpan bytes = ByteSpan(in_).subspan(inStart_, inEnd_ - inStart_);
    // Back-pressure: who doesn't read its answers gets no more calls through.
    if (!broken_ && out_.size() - outStart_ > limits_.maxQueuedBytes) return;
    const Header header = parseHeader(bytes, limits_);
    if (!broken_ && (header.state == Header::Bad || header.state == Header::TooBig)) {
      fail(header.state == Header::Bad ? CutOff::BadHeader : CutOff::TooBig);
      return;
    }
    if (!broken_ && header.state == Header::Complete && bytes.size() >= header.messageBytes) {
      capnp::ReaderOptions options;
      options.nestingLimit = 24;
      options.traversalLimitInWords = 4 * limits_.maxMessageBytes / WORD + 1024;
      kj::Own<capnp::MessageReader> message = kj::heap<OwnedMessage>(bytes, header, options);
      wipe(MutableByteSpan(in_).subspan(inStart_, header.messageBytes));
      inStart_ += header.messageBytes;
      if (inStart_ == inEnd_) {
        inStart_ = inEnd_ = 0;
        if (in_.size() > KEEP_BYTES) std::vector<std::byte>().swap(in_);
      }
      if (!screen(*message)) return;
      auto done = kj::mv(*fulfiller);
      reading_ = nullptr;
      done->fulfill(capnp::MessageReaderAndFds{kj::mv(message), nullptr});
      return;
    }
    if (eof_ || broken_) finishRead();
  }
}

// The link is at its end: the RPC system hears "no more messages".
void Link::finishRead() {
  KJ_IF_MAYBE (fulfiller, reading_) {
    auto done = kj::mv(*fulfiller);
    reading_ = nullptr;
    done->fulfill(nullptr);
  }
}

// Only what a client of ours may send passes: bootstrap, call, finish, release, abort; answers to nothing (we never
// call a client); parameters without capabilities; and no more open questions than the limit.
bool Link::screen(capnp::MessageReader& message) {
  if (side_ == LinkSide::Client) return true;
  try {
    auto root = message.getRoot<capnp::rpc::Message>();
    switch (root.which()) {
      case capnp::rpc::Message::BOOTSTRAP: questions_.insert(root.getBootstrap().getQuestionId()); break;
      case capnp::rpc::Message::CALL: {
        auto call = root.getCall();
        if (call.getParams().getCapTable().size() != 0) return fail(CutOff::CapabilityInParams), false;
        if (!call.getSendResultsTo().isCaller()) return fail(CutOff::BadMessage), false;
        questions_.insert(call.getQuestionId());
        break;
      }
      case capnp::rpc::Message::FINISH: questions_.erase(root.getFinish().getQuestionId()); break;
      case capnp::rpc::Message::RELEASE:
      case capnp::rpc::Message::ABORT:
      case capnp::rpc::Message::UNIMPLEMENTED: break;
      case capnp::rpc::Message::RETURN:
      case capnp::rpc::Message::RESOLVE:
      case capnp::rpc::Message::DISEMBARGO:
      case capnp::rpc::Message::OBSOLETE_SAVE:
      case capnp::rpc::Message::OBSOLETE_DELETE:
      case capnp::rpc::Message::PROVIDE:
      case capnp::rpc::Message::ACCEPT:
      case capnp::rpc::Message::JOIN:
      default: return fail(CutOff::BadMessage), false;
    }
  } catch (const kj::Exception&) { return fail(CutOff::BadMessage), false; }
  if (questions_.size() > limits_.maxOpenQuestions) return fail(CutOff::TooManyCalls), false;
  return true;
}

void Link::fail(CutOff reason) {
  if (cutOff_ == CutOff::None) cutOff_ = reason;
  broken_ = true;
  ::shutdown(fd_, SHUT_RDWR);
  wipe(out_);
  out_.clear();
  outStart_ = 0;
  updateInterest();
  finishRead();
}

kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> Link::tryReadMessage(kj::ArrayPtr<kj::AutoCloseFd>,
                                                                        capnp::ReaderOptions,
                                                                        kj::ArrayPtr<capnp::word>) {
  auto paf = kj::newPromiseAndFulfiller<kj::Maybe<capnp::MessageReaderAndFds>>();
  reading_ = kj::mv(paf.fulfiller);
  deliver();
  return kj::mv(paf.promise);
}

void Link::append(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  size_t bytes = (4 + 4 * segments.size() + WORD - 1) / WORD * WORD;
  const size_t headerBytes = bytes;
  for (auto& segment : segments) bytes += segment.size() * WORD;
  const size_t at = out_.size();
  if (out_.capacity() < at + bytes) {
    std::vector<std::byte> larger;
    larger.reserve(std::max(out_.capacity() * 2, at + bytes));
    larger.assign(out_.begin(), out_.end());
    wipe(out_);
    out_ = std::move(larger);
  }
  out_.resize(at + bytes);
  std::byte* to = out_.data() + at;
  std::memset(to, 0, headerBytes);
  const uint32_t last = htole32(static_cast<uint32_t>(segments.size() - 1));
  std::memcpy(to, &last, 4);
  size_t offset = headerBytes;
  for (size_t i = 0; i < segments.size(); ++i) {
    const uint32_t words = htole32(static_cast<uint32_t>(segments[i].size()));
    std::memcpy(to + 4 + 4 * i, &words, 4);
    std::memcpy(to + offset, segments[i].begin(), segments[i].size() * WORD);
    offset += segments[i].size() * WORD;
  }
}

// How much may be queued for a peer that has called a lot before it reads: beyond it nothing will ever be read.
static size_t queueCeiling(const LinkLimits& limits) { return 8 * (limits.maxQueuedBytes + limits.maxMessageBytes); }

kj::Promise<void> Link::writeMessage(kj::ArrayPtr<const int>,
                                     kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) {
  if (broken_ || ended_) return kj::READY_NOW;  // the end was or will be told by tryReadMessage
  append(segments);
  if (side_ == LinkSide::Server && out_.size() - outStart_ > queueCeiling(limits_)) {
    // Not inside the RPC system's own call.
    loop_.defer([this, alive = alive_] {
      if (*alive) fail(CutOff::SlowReader);
    });
  }
  // All messages of a turn leave in one write.
  if (!flushScheduled_) {
    flushScheduled_ = true;
    loop_.defer([this, alive = alive_] {
      if (!*alive) return;
      flushScheduled_ = false;
      flush();
    });
  }
  return kj::READY_NOW;
}

kj::Promise<void> Link::writeMessages(kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) {
  for (auto& message : messages) static_cast<void>(writeMessage(nullptr, message));
  return kj::READY_NOW;
}

void Link::flush() {
  while (outStart_ < out_.size()) {
    const ssize_t sent = ::send(fd_, out_.data() + outStart_, out_.size() - outStart_, MSG_NOSIGNAL);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) break;
      broken_ = true;
      eof_ = true;
      finishRead();
      break;
    }
    outStart_ += static_cast<size_t>(sent);
    stallTimer_ = nullptr;
  }
  if (broken_ || outStart_ == out_.size()) {
    wipe(out_);
    out_.clear();
    outStart_ = 0;
    if (out_.capacity() > KEEP_BYTES) std::vector<std::byte>().swap(out_);
    stallTimer_ = nullptr;
    if (ended_ && !broken_) ::shutdown(fd_, SHUT_WR);
  } else if (stallTimer_ == nullptr) {
    stallTimer_ = loop_.timer()
                      .afterDelay(limits_.stallTimeoutMs * kj::MILLISECONDS)
                      .then([this] { fail(CutOff::SlowReader); })
                      .eagerlyEvaluate(nullptr);
  }
  deliver();  // back-pressure may have ended
  updateInterest();
}

void Link::updateInterest() {
  uint32_t wanted = 0;
  const bool full = out_.size() - outStart_ > limits_.maxQueuedBytes;
  const bool bufferFull = inEnd_ - inStart_ > limits_.maxMessageBytes + READ_CHUNK;
  if (!eof_ && !broken_ && !full && !bufferFull) wanted |= EPOLLIN;
  if (!broken_ && outStart_ < out_.size()) wanted |= EPOLLOUT;
  if (wanted == interest_) return;
  if (wanted == 0 && (eof_ || broken_)) {
    loop_.remove(fd_, *this);  // a hang-up can't be masked: it would be reported for ever
  } else if (interest_ == 0 && (eof_ || broken_)) {
    loop_.add(fd_, wanted, *this);
  } else {
    loop_.modify(fd_, wanted, *this);
  }
  interest_ = wanted;
}

kj::Promise<void> Link::end() {
  // The client is still there: the RPC system gave up on what it sent.
  if (side_ == LinkSide::Server && !eof_ && !broken_ && cutOff_ == CutOff::None) cutOff_ = CutOff::BadMessage;
  ended_ = true;
  flush();
  return kj::READY_NOW;
}

}  // namespace sallyport
