// channel_pump.h - standard input to a channel, and the channel to standard output, both at once. Part of: cli.
// See docs/protocol.md §5 for streams over messages, where the empty message is the end of a direction, and §13.4 for a
// channel of the peer protocol, which has an end of its own. What must never happen here: a cut stream that looks like
// an ended one, memory that grows with a slow reader.
#pragma once

#include <memory>
#include <string>

#include "cli/message_frames.h"
#include "cli/standard_io.h"
#include "proto/net.capnp.h"
#include "proto/wire/limits.h"

namespace sallyport::cli {

struct PumpOptions {
  bool messages = false;  // be32 frames on standard input and output; else a stream
  // messages: each direction has an authenticated end, as in the peer protocol's hard mode
  bool messagesEnd = false;
  uint32_t waitS = 5;  // messages: how long to go on after the end of the input while nothing comes; 0: for ever
  size_t maxMessageBytes = wire::MAX_MESSAGE_BYTES;  // messages: the longest that the input may hold
  int inputFd = 0;                                   // standard input and output, but in tests
  int outputFd = 1;
};

class ChannelPump {
 public:
  ChannelPump(EventLoop& loop, proto::Channel::Client channel, PumpOptions options);
  // A stream over the peer protocol: bytes of any code are its bytes, and what is sent has code 0.
  ChannelPump(EventLoop& loop, proto::PeerChannel::Client channel, PumpOptions options);

  // Empty when both directions have ended as they should; else what went wrong, for people.
  kj::Promise<std::string> run();
  // After run(): what to do about what went wrong; may be empty.
  const std::string& hint() const { return hint_; }
  // After run(): the wire was closed or reset, and the other side had said nothing.
  bool closedUnheard() const { return closedUnheard_; }

 private:
  void onInput(ByteSpan bytes);
  void sendStream(ByteSpan bytes);
  void sendFrames();
  void send(const std::vector<ByteSpan>& messages);
  bool maySend() const;
  // `asked` is a call that sends so many bytes.
  template <typename Answer>
  void awaitSent(Answer&& asked, size_t bytes, bool isEnd);
  void onSent(proto::SendOutcome::Reader outcome, size_t bytes, bool isEnd);
  void receiveMore();
  void onReceived(proto::Received::Reader received);
  void onPeerReceived(proto::PeerReceived::Reader received);
  void breakOff(std::string_view reason);
  void onChannelEnd();
  void sendEnd();
  void onOutputProgress();
  void noteProgress();
  bool isQuiet() const;
  void watchQuiet();
  void askUnderWay();
  void onQuiet();
  void settle();
  void finish(std::string problem);
  void onFailure(kj::Exception&& failure);

  ChannelPump(EventLoop& loop, PumpOptions options);

  EventLoop& loop_;
  // One of the two.
  proto::Channel::Client channel_ = nullptr;
  proto::PeerChannel::Client peerChannel_ = nullptr;
  bool isPeer_ = false;
  PumpOptions options_;
  InputReader input_;
  OutputWriter output_;
  FrameReader frames_;
  unsigned sending_ = 0;  // calls without an answer
  size_t sendingBytes_ = 0;
  unsigned receiving_ = 0;
  bool inputEnded_ = false;
  bool endSent_ = false;    // our direction's end is on its way, or all messages are
  bool peerEnded_ = false;  // the peer's direction has ended
  bool channelEnded_ = false;
  uint32_t underWay_ = 0;     // messages: bytes of one that isn't whole, by netd's last answer
  kj::TimePoint quietSince_;  // messages, after the end of the input: nothing has come since
  std::string problem_;       // of the channel; told when the output is written
  std::string hint_;
  bool heard_ = false;  // something was received
  bool closedUnheard_ = false;
  bool done_ = false;
  kj::Own<kj::PromiseFulfiller<std::string>> fulfiller_;
  struct FailureHandler final : kj::TaskSet::ErrorHandler {
    explicit FailureHandler(ChannelPump& pump) : owner(pump) {}
    void taskFailed(kj::Exception&& failure) override { owner.onFailure(kj::mv(failure)); }
    ChannelPump& owner;
  };
  FailureHandler failureHandler_;
  kj::TaskSet tasks_;
};

}  // namespace sallyport::cli
