// channel_pump.cc - see channel_pump.h.
#include "cli/channel_pump.h"

#include <algorithm>
#include <cstring>

#include "cli/daemon_client.h"
#include "cli/terminal.h"
#include "common/log.h"
#include "proto/wire/drop_reason.h"

namespace sallyport::cli {
namespace {

constexpr size_t MAX_BATCH_MESSAGES = 1024;
constexpr size_t MAX_BATCH_BYTES = 16 * wire::MAX_MESSAGE_BYTES;  // under the 2 MiB of a call
constexpr unsigned MAX_SENDING = 4;                               // calls without an answer,
constexpr size_t MAX_SENDING_BYTES = 4 << 20;                     // and so much in them
constexpr unsigned MAX_RECEIVING = 2;
constexpr unsigned MAX_PEER_RECEIVING = 1;    // what the interface allows
constexpr size_t MAX_OUTPUT_BYTES = 4 << 20;  // more than that queued: nothing more is asked for

constexpr uint32_t CLOSE_TIMEOUT_MS = 2000;

constexpr const char* AFTER_A_BREAK =
    "the last data may be missing on either side: send it anew; netd's log, here and there, tells more";

// Why netd took no message. `maxBytes`: the longest that the pump gives it.
std::string refusedWords(proto::NetRefusal refusal, size_t maxBytes) {
  switch (refusal) {
    case proto::NetRefusal::TOO_BIG:
      return "netd refused to send: a message is longer than its entry's `max_frame_bytes`, which is below the " +
             std::to_string(maxBytes) + " of the configuration here";
    case proto::NetRefusal::CLOSED: return "netd refused to send: the channel is closed";
    default: return "netd refused to send, code " + std::to_string(static_cast<unsigned>(refusal));
  }
}

}  // namespace

ChannelPump::ChannelPump(EventLoop& loop, proto::Channel::Client channel, PumpOptions options)
    : ChannelPump(loop, options) {
  channel_ = kj::mv(channel);
}

ChannelPump::ChannelPump(EventLoop& loop, proto::PeerChannel::Client channel, PumpOptions options)
    : ChannelPump(loop, options) {
  peerChannel_ = kj::mv(channel);
  isPeer_ = true;
}

ChannelPump::ChannelPump(EventLoop& loop, PumpOptions options)
    : loop_(loop),
      options_(options),
      input_(
          loop, options.inputFd, MAX_BATCH_BYTES, [this](ByteSpan bytes) { onInput(bytes); },
          [this](int error) { finish(std::string("can't read standard input: ") + std::strerror(error)); }),
      output_(
          loop, options.outputFd, [this] { onOutputProgress(); },
          [this](int error) { finish(std::string("can't write to standard output: ") + std::strerror(error)); }),
      frames_(options.maxMessageBytes),
      quietSince_(loop.timer().now()),
      failureHandler_(*this),
      tasks_(failureHandler_) {}

kj::Promise<std::string> ChannelPump::run() {
  auto paf = kj::newPromiseAndFulfiller<std::string>();
  fulfiller_ = kj::mv(paf.fulfiller);
  input_.resume();
  receiveMore();
  return kj::mv(paf.promise);
}

// --- standard input to channel ---------------------------------------------------------------------------------------

void ChannelPump::onInput(ByteSpan bytes) {
  if (done_) return;
  inputEnded_ = bytes.empty();
  if (options_.messages) {
    frames_.append(bytes);
    sendFrames();
  } else if (!bytes.empty()) {
    sendStream(bytes);
  }
  if (inputEnded_ && !done_) {
    if (frames_.pending() != 0) return finish("standard input ends inside a message");
    if (!options_.messages || options_.messagesEnd)
      sendEnd();
    else
      endSent_ = true;
    if (options_.messages && options_.waitS != 0) {
      noteProgress();
      watchQuiet();
    }
  }
  if (!maySend()) input_.pause();
  settle();
}

bool ChannelPump::maySend() const { return sending_ < MAX_SENDING && sendingBytes_ < MAX_SENDING_BYTES; }

template <typename Answer>
void ChannelPump::awaitSent(Answer&& asked, size_t bytes, bool isEnd) {
  ++sending_;
  sendingBytes_ += bytes;
  tasks_.add(asked.then([this, bytes, isEnd](auto&& answer) { onSent(answer.getOutcome(), bytes, isEnd); }));
}

void ChannelPump::sendEnd() {
  if (isPeer_)
    awaitSent(peerChannel_.finishRequest().send(), 0, true);
  else
    awaitSent(channel_.finishRequest().send(), 0, true);
}

void ChannelPump::sendStream(ByteSpan bytes) {
  if (isPeer_) {
    auto request = peerChannel_.sendRequest(capnp::MessageSize{64 + bytes.size() / sizeof(capnp::word), 0});
    std::ranges::copy(bytes,
                      reinterpret_cast<std::byte*>(request.initData(static_cast<unsigned>(bytes.size())).begin()));
    awaitSent(request.send(), bytes.size(), false);
    return;
  }
  std::vector<ByteSpan> messages;
  while (!bytes.empty()) {
    messages.push_back(bytes.first(std::min(bytes.size(), wire::MAX_MESSAGE_BYTES)));
    bytes = bytes.subspan(messages.back().size());
  }
  send(messages);
}

void ChannelPump::sendFrames() {
  std::vector<ByteSpan> messages;
  size_t size = 0;
  while (const auto message = frames_.next()) {
    if (messages.size() == MAX_BATCH_MESSAGES || size + message->size() > MAX_BATCH_BYTES) {
      send(messages);
      messages.clear();
      size = 0;
    }
    messages.push_back(*message);
    size += message->size();
  }
  if (!messages.empty()) send(messages);
  if (frames_.tooLong() != 0) {
    finish("standard input: a message of " + std::to_string(frames_.tooLong()) + " bytes, where " +
           std::to_string(options_.maxMessageBytes) + " are the most");
  }
}

void ChannelPump::send(const std::vector<ByteSpan>& messages) {
  // One segment for all: the other side takes few.
  uint64_t words = 64;
  size_t bytes = 0;
  for (const auto& message : messages) {
    words += 4 + message.size() / sizeof(capnp::word);
    bytes += message.size();
  }
  auto request = channel_.sendRequest(capnp::MessageSize{words, 0});
  auto list = request.initMessages(static_cast<unsigned>(messages.size()));
  for (unsigned i = 0; i < messages.size(); ++i) {
    auto data = list[i].initData(static_cast<unsigned>(messages[i].size()));
    if (!messages[i].empty()) std::memcpy(data.begin(), messages[i].data(), messages[i].size());
  }
  awaitSent(request.send(), bytes, false);
}

void ChannelPump::onSent(proto::SendOutcome::Reader outcome, size_t bytes, bool isEnd) {
  --sending_;
  sendingBytes_ -= bytes;
  if (done_) {
    if (sending_ == 0) fulfiller_->fulfill(std::string(problem_));
    return;
  }
  switch (outcome.which()) {
    case proto::SendOutcome::SENT:
      if (isEnd) endSent_ = true;
      if (maySend() && problem_.empty()) input_.resume();
      noteProgress();
      break;
    case proto::SendOutcome::BROKEN:
      // What the peer sent before is still to be received, and tells the end.
      if (problem_.empty()) breakOff(outcome.getBroken().cStr());
      input_.pause();
      break;
    case proto::SendOutcome::REFUSED:
      // What the input gave is lost: nothing that comes after it may look as if all of it had been sent.
      return finish(problem_.empty() ? refusedWords(outcome.getRefused(), options_.maxMessageBytes) : problem_);
  }
  settle();
}

// --- channel to standard output --------------------------------------------------------------------------------------

void ChannelPump::receiveMore() {
  const unsigned most = isPeer_ ? MAX_PEER_RECEIVING : MAX_RECEIVING;
  while (!done_ && !channelEnded_ && receiving_ < most && output_.queued() < MAX_OUTPUT_BYTES) {
    ++receiving_;
    if (isPeer_) {
      // As much as there is: a stream waits for nothing else.
      auto request = peerChannel_.receiveRequest();
      request.setMaxBytes(UINT64_MAX);
      tasks_.add(request.send().then([this](auto&& answer) { onPeerReceived(answer.getReceived()); }));
      continue;
    }
    tasks_.add(channel_.receiveRequest().send().then([this](auto&& answer) { onReceived(answer.getReceived()); }));
  }
}

void ChannelPump::onReceived(proto::Received::Reader received) {
  --receiving_;
  if (done_ || channelEnded_) return;
  if (received.getMessages().size() != 0 || received.getUnderWay() != underWay_) noteProgress();
  underWay_ = received.getUnderWay();
  heard_ = heard_ || underWay_ != 0;
  for (const auto message : received.getMessages()) {
    heard_ = true;
    const auto data = message.getData();
    const ByteSpan bytes = std::as_bytes(std::span(data.begin(), data.size()));
    if (options_.messages) {
      output_.write(frameHeader(bytes.size()));
      if (!bytes.empty()) output_.write(bytes);
    } else if (peerEnded_) {
      return finish("the peer sent more after its end of the stream");
    } else if (bytes.empty()) {
      peerEnded_ = true;
      output_.end();
    } else {
      output_.write(bytes);
    }
    if (done_) return;
  }
  switch (received.getEnd()) {
    case proto::ChannelEnd::OPEN: break;
    case proto::ChannelEnd::ENDED:
      channelEnded_ = true;
      if (options_.messagesEnd) {
        peerEnded_ = true;
        output_.end();
      }
      if (problem_.empty() && !options_.messages && !peerEnded_) {
        problem_ = "the stream is truncated: the peer closed without ending it";
        hint_ = AFTER_A_BREAK;
      }
      break;
    case proto::ChannelEnd::BROKEN:
    default:
      channelEnded_ = true;
      // The first reason is the nearest to the cause, unless it is only that we couldn't send any more.
      breakOff(received.getReason().cStr());
      break;
  }
  onChannelEnd();
}

void ChannelPump::onPeerReceived(proto::PeerReceived::Reader received) {
  --receiving_;
  if (done_ || channelEnded_) return;
  const auto data = received.getData();
  heard_ = heard_ || data.size() != 0;
  if (data.size() != 0) output_.write(std::as_bytes(std::span(data.begin(), data.size())));
  const auto status = received.getStatus();
  if (status.isEnded()) {
    peerEnded_ = channelEnded_ = true;
    output_.end();
  } else if (status.isBroken()) {
    channelEnded_ = true;
    breakOff(status.getBroken().cStr());
  }
  if (!done_) onChannelEnd();
}

// `reason`: netd's name of it.
void ChannelPump::breakOff(std::string_view reason) {
  const auto known = wire::dropReasonNamed(reason);
  problem_ = "the channel is broken: " + sanitized(reason);
  // The entry may take more than goes through netd's interface.
  if (known == wire::DropReason::FrameTooLarge && options_.messages && options_.maxMessageBytes == MAX_FRAMED_BYTES)
    problem_ +=
        ": a frame longer than the " + std::to_string(MAX_FRAMED_BYTES) + " bytes that --messages takes at most";
  else if (known)
    problem_ += ": " + std::string(wire::describe(*known));
  hint_ = AFTER_A_BREAK;
  closedUnheard_ = !heard_ && (known == wire::DropReason::Truncated || known == wire::DropReason::TransportError);
}

void ChannelPump::onChannelEnd() {
  receiveMore();
  settle();
}

void ChannelPump::onOutputProgress() {
  receiveMore();
  settle();
}

// --- the end ---------------------------------------------------------------------------------------------------------

void ChannelPump::noteProgress() { quietSince_ = loop_.timer().now(); }

bool ChannelPump::isQuiet() const { return loop_.timer().now() - quietSince_ >= options_.waitS * kj::SECONDS; }

// Once it has been quiet for so long, netd is asked whether a message is under way.
void ChannelPump::watchQuiet() {
  tasks_.add(loop_.timer().atTime(quietSince_ + options_.waitS * kj::SECONDS).then([this] {
    if (done_ || channelEnded_) return;
    // While we wait for a slow reader, here or there, it isn't the peer who is quiet.
    if (output_.queued() != 0 || sending_ != 0) noteProgress();
    if (isQuiet())
      askUnderWay();
    else
      watchQuiet();
  }));
}

// Answered after all calls that wait: with the messages that are there, or else with how much is under way.
void ChannelPump::askUnderWay() {
  auto request = channel_.receiveRequest();
  request.setTimeoutMs(1);
  ++receiving_;
  tasks_.add(request.send().then([this](auto&& answer) {
    onReceived(answer.getReceived());
    if (done_ || channelEnded_) return;
    if (isQuiet())
      onQuiet();
    else
      watchQuiet();
  }));
}

// Where the protocol has no end of a direction, that nothing is under way has to do as one.
void ChannelPump::onQuiet() {
  if (!problem_.empty() || (underWay_ == 0 && !options_.messagesEnd)) return finish(problem_);
  std::string problem = options_.messagesEnd ? "the peer hasn't ended its direction: " : "";
  problem += "nothing came for " + std::to_string(options_.waitS) + " s";
  if (underWay_ != 0) problem += ", and a message is under way";
  hint_ = "is the other side up? A longer --wait has more patience";
  finish(std::move(problem));
}

// Decides whether this is the end. Called after every event.
void ChannelPump::settle() {
  if (done_) return;
  // The peer's end in the peer protocol is not the channel's: we may still send.
  if (channelEnded_ && !((isPeer_ || options_.messagesEnd) && peerEnded_ && problem_.empty())) {
    // What is on its way is answered too: taken before the end, or not.
    if (output_.queued() != 0 || sending_ != 0) return;
    const bool incomplete = options_.messages ? frames_.pending() != 0 : !endSent_;
    if (problem_.empty() && incomplete) problem_ = "the peer closed before it took everything";
    return finish(problem_);
  }
  const bool allSent = endSent_ && sending_ == 0;
  const bool allReceived = peerEnded_ && output_.queued() == 0;
  if (allSent && allReceived) finish({});
}

void ChannelPump::finish(std::string problem) {
  if (done_) return;
  done_ = true;
  input_.pause();
  problem_ = std::move(problem);
  // What went wrong gets no end, where the protocol has one: the peer is to see that, and netd tells it when this
  // program is gone. What was given to netd before is to be taken, but a peer that doesn't read can't keep us.
  kj::Promise<void> last = kj::READY_NOW;
  if (!problem_.empty() && sending_ == 0) return fulfiller_->fulfill(std::string(problem_));
  if (!problem_.empty()) {
    last = kj::NEVER_DONE;
  } else {
    // Closed in so many words: netd need not find out by our disappearance. But a netd that doesn't answer can't keep
    // us.
    last = isPeer_ ? peerChannel_.closeRequest().send().ignoreResult() : channel_.closeRequest().send().ignoreResult();
  }
  tasks_.add(within(loop_, CLOSE_TIMEOUT_MS, kj::mv(last))
                 .then([this] { fulfiller_->fulfill(std::string(problem_)); },
                       [this](kj::Exception&&) { fulfiller_->fulfill(std::string(problem_)); }));
}

void ChannelPump::onFailure(kj::Exception&& failure) {
  if (!done_) problem_ = "netd " + describeFailure(failure);
  done_ = true;
  input_.pause();
  fulfiller_->fulfill(std::string(problem_));  // nothing that is still asked will be answered
}

}  // namespace sallyport::cli
