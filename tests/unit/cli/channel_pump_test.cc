// Goal: `pipe` moves everything, ends when both directions have, and never takes a cut for an end.
// Method: a channel made of this file's own servers, in the same process; real pipes, files and sockets as input and
// output.
#include "cli/channel_pump.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <deque>
#include <functional>
#include <thread>

#include <gtest/gtest.h>

namespace sallyport::cli {
namespace {

// Gives back what it gets, as the service "echo" does. Its end can be chosen.
class FakeChannel final : public proto::Channel::Server {
 public:
  struct State {
    std::deque<std::string> queue;
    proto::ChannelEnd end = proto::ChannelEnd::OPEN;
    std::string reason;
    bool echo = true;
    bool closed = false;
    bool finished = false;
    bool sendBreaks = false;
    kj::Maybe<proto::NetRefusal> refusal;  // of each send
    size_t endAfter = SIZE_MAX;            // messages delivered before `then`
    proto::ChannelEnd then = proto::ChannelEnd::ENDED;
    std::function<void(State&)> onFinish;      // where a direction has an end of its own; else the empty message
    std::function<uint32_t(State&)> underWay;  // asked by who waits only for a moment
    std::vector<std::string> got;
    std::vector<kj::Own<kj::PromiseFulfiller<void>>> waiting;

    void wake() {
      for (auto& fulfiller : waiting) fulfiller->fulfill();
      waiting.clear();
    }
    void take(std::string message) {
      got.push_back(message);
      if (echo) queue.push_back(std::move(message));
      wake();
    }
  };

  explicit FakeChannel(std::shared_ptr<State> state) : state_(std::move(state)) {}

  kj::Promise<void> send(SendContext context) override {
    auto outcome = context.getResults().initOutcome();
    if (state_->sendBreaks) {
      outcome.setBroken("transport_error");
      return kj::READY_NOW;
    }
    KJ_IF_MAYBE (refusal, state_->refusal) {
      outcome.setRefused(*refusal);
      return kj::READY_NOW;
    }
    for (const auto message : context.getParams().getMessages()) {
      state_->take({reinterpret_cast<const char*>(message.getData().begin()), message.getData().size()});
    }
    outcome.setSent();
    return kj::READY_NOW;
  }

  kj::Promise<void> receive(ReceiveContext context) override {
    if (!state_->queue.empty() || state_->end != proto::ChannelEnd::OPEN) {
      answer(context);
      return kj::READY_NOW;
    }
    if (context.getParams().getTimeoutMs() != 0) {
      const uint32_t underWay = state_->underWay ? state_->underWay(*state_) : 0;
      answer(context);
      context.getResults().getReceived().setUnderWay(underWay);
      return kj::READY_NOW;
    }
    auto paf = kj::newPromiseAndFulfiller<void>();
    state_->waiting.push_back(kj::mv(paf.fulfiller));
    return paf.promise.then([this, context]() mutable { answer(context); });
  }

  kj::Promise<void> close(CloseContext) override {
    state_->closed = true;
    return kj::READY_NOW;
  }

  kj::Promise<void> finish(FinishContext context) override {
    auto outcome = context.getResults().initOutcome();
    if (state_->sendBreaks) {
      outcome.setBroken("transport_error");
    } else {
      state_->finished = true;
      if (state_->onFinish)
        state_->onFinish(*state_);
      else
        state_->take("");
      outcome.setSent();
    }
    return kj::READY_NOW;
  }

 private:
  void answer(ReceiveContext context) {
    auto received = context.getResults().initReceived();
    std::vector<std::string> batch;
    while (!state_->queue.empty() && batch.size() < 8 && state_->endAfter > 0) {
      batch.push_back(std::move(state_->queue.front()));
      state_->queue.pop_front();
      --state_->endAfter;
    }
    auto list = received.initMessages(static_cast<unsigned>(batch.size()));
    for (unsigned i = 0; i < batch.size(); ++i) {
      list[i].setData(kj::arrayPtr(reinterpret_cast<const kj::byte*>(batch[i].data()), batch[i].size()));
    }
    if (state_->endAfter == 0) state_->end = state_->then;
    received.setEnd(state_->queue.empty() || state_->endAfter == 0 ? state_->end : proto::ChannelEnd::OPEN);
    received.setReason(state_->reason.c_str());
  }

  std::shared_ptr<State> state_;
};

struct Run {
  std::string problem;
  std::string hint;
  std::string output;
};

std::string readAll(int fd) {
  std::string text;
  char chunk[65536];
  ssize_t got = 0;
  while ((got = ::read(fd, chunk, sizeof chunk)) > 0) text.append(chunk, static_cast<size_t>(got));
  return text;
}

// Pumps with pipes: one thread writes `input`, another reads the output.
Run pump(std::shared_ptr<FakeChannel::State> state, const std::string& input, PumpOptions options = {}) {
  std::signal(SIGPIPE, SIG_IGN);
  int in[2];
  int out[2];
  EXPECT_EQ(::pipe2(in, O_CLOEXEC), 0);
  EXPECT_EQ(::pipe2(out, O_CLOEXEC), 0);
  Run run;
  std::thread writer([&] {
    size_t at = 0;
    while (at < input.size()) {
      const auto done = ::write(in[1], input.data() + at, input.size() - at);
      if (done <= 0) break;
      at += static_cast<size_t>(done);
    }
    ::close(in[1]);
  });
  std::thread reader([&] { run.output = readAll(out[0]); });
  {
    EventLoop loop;
    options.inputFd = in[0];
    options.outputFd = out[1];
    ChannelPump pump(loop, kj::heap<FakeChannel>(state), options);
    run.problem = loop.await(pump.run());
    run.hint = pump.hint();
  }
  ::close(in[0]);
  ::close(out[1]);
  writer.join();
  reader.join();
  ::close(out[0]);
  return run;
}

std::string noise(size_t size) {
  std::string text(size, '\0');
  uint32_t x = 1;
  for (auto& c : text) c = static_cast<char>((x = x * 1664525 + 1013904223) >> 24);
  return text;
}

std::string frame(const std::string& message) {
  const auto header = frameHeader(message.size());
  return std::string(reinterpret_cast<const char*>(header.data()), header.size()) + message;
}

TEST(ChannelPump, MovesAStreamBothWaysAndEndsCleanly) {
  for (const size_t size : {size_t{0}, size_t{1}, size_t{65503}, size_t{65504}, size_t{9'000'000}}) {
    auto state = std::make_shared<FakeChannel::State>();
    const auto input = noise(size);
    const auto run = pump(state, input);
    EXPECT_EQ(run.problem, "") << size;
    EXPECT_TRUE(run.output == input) << size;
    EXPECT_TRUE(state->closed);
    EXPECT_EQ(state->got.back(), "");
    for (size_t i = 0; i + 1 < state->got.size(); ++i) EXPECT_FALSE(state->got[i].empty());
  }
}

TEST(ChannelPump, AnEndWithoutTheEmptyMessageIsATruncation) {
  auto state = std::make_shared<FakeChannel::State>();
  state->queue = {"some", "bytes"};
  state->endAfter = 2;
  state->echo = false;
  const auto run = pump(state, "");
  EXPECT_EQ(run.output, "somebytes");
  EXPECT_NE(run.problem.find("truncated"), std::string::npos);
}

TEST(ChannelPump, ABrokenChannelIsToldWithItsReasonAfterItsBytes) {
  auto state = std::make_shared<FakeChannel::State>();
  state->queue = {"bytes"};
  state->endAfter = 1;
  state->then = proto::ChannelEnd::BROKEN;
  state->reason = "truncated";
  state->echo = false;
  const auto run = pump(state, "");
  EXPECT_EQ(run.output, "bytes");
  EXPECT_EQ(run.problem,
            "the channel is broken: truncated: the wire ended without the authenticated end of the stream");
  EXPECT_NE(run.hint.find("send it anew"), std::string::npos);

  state->queue = {"bytes"};
  state->end = proto::ChannelEnd::OPEN;
  state->endAfter = 1;
  state->reason = "of a later version";
  EXPECT_EQ(pump(state, "").problem, "the channel is broken: of a later version");
}

TEST(ChannelPump, AMessageAfterTheEndIsAnError) {
  auto state = std::make_shared<FakeChannel::State>();
  state->queue = {"a", "", "b"};
  state->echo = false;
  EXPECT_NE(pump(state, "").problem.find("after its end"), std::string::npos);
}

TEST(ChannelPump, BytesThatCannotBeSentAreAnError) {
  auto state = std::make_shared<FakeChannel::State>();
  state->sendBreaks = true;
  state->queue = {""};
  state->endAfter = 1;
  const auto run = pump(state, "lost");
  EXPECT_FALSE(run.problem.empty());  // told by the send or by the end, whichever comes first
}

TEST(ChannelPump, AMessageThatIsRefusedIsAnErrorAtOnceAndNoEnd) {
  for (const bool messages : {true, false}) {
    auto state = std::make_shared<FakeChannel::State>();
    state->refusal = proto::NetRefusal::TOO_BIG;
    int in[2];
    int out[2];
    ASSERT_EQ(::pipe2(in, O_CLOEXEC), 0);
    ASSERT_EQ(::pipe2(out, O_CLOEXEC), 0);
    const auto input = frame("too long for netd");
    ASSERT_EQ(::write(in[1], input.data(), input.size()), static_cast<ssize_t>(input.size()));
    {
      EventLoop loop;  // the input stays open, and the peer says nothing
      ChannelPump pump(loop, kj::heap<FakeChannel>(state),
                       {.messages = messages, .maxMessageBytes = 1000, .inputFd = in[0], .outputFd = out[1]});
      const auto problem = loop.await(pump.run());
      EXPECT_NE(problem.find("`max_frame_bytes`"), std::string::npos) << problem;
      EXPECT_NE(problem.find("1000"), std::string::npos) << problem;
    }
    EXPECT_FALSE(state->closed);  // that would be an end
    EXPECT_TRUE(state->got.empty());
    for (const int fd : {in[0], in[1], out[0], out[1]}) ::close(fd);
  }
}

TEST(ChannelPump, AClosedChannelIsNoEndOfAStreamThatWeHaveNotEnded) {
  std::signal(SIGPIPE, SIG_IGN);
  auto state = std::make_shared<FakeChannel::State>();
  state->queue = {"all", ""};
  state->endAfter = 2;
  int in[2];
  int out[2];
  ASSERT_EQ(::pipe2(in, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(out, O_CLOEXEC), 0);
  EventLoop loop;
  ChannelPump pump(loop, kj::heap<FakeChannel>(state), {.inputFd = in[0], .outputFd = out[1]});
  EXPECT_NE(loop.await(pump.run()).find("before it took everything"), std::string::npos);
  for (const int fd : {in[0], in[1], out[0], out[1]}) ::close(fd);
}

TEST(ChannelPump, KeepsMessagesWhole) {
  auto state = std::make_shared<FakeChannel::State>();
  std::string input;
  std::vector<std::string> messages = {"", "one", noise(65503), "", noise(40000)};
  for (int i = 0; i < 3000; ++i) messages.push_back(noise(static_cast<size_t>(i % 700)));
  for (const auto& message : messages) input += frame(message);
  const auto run = pump(state, input, {.messages = true, .waitS = 1});
  EXPECT_EQ(run.problem, "");
  EXPECT_TRUE(run.output == input);
  EXPECT_EQ(state->got, messages);
  EXPECT_TRUE(state->closed);
}

TEST(ChannelPump, MessagesMayBeLongerThanThoseOfCurveTun) {
  auto state = std::make_shared<FakeChannel::State>();
  const auto input = frame(noise(65504)) + frame(noise(MAX_FRAMED_BYTES)) + frame("");
  const auto run = pump(state, input, {.messages = true, .waitS = 1, .maxMessageBytes = MAX_FRAMED_BYTES});
  EXPECT_EQ(run.problem, "");
  EXPECT_TRUE(run.output == input);
}

TEST(ChannelPump, TakesLongMessagesWhateverTheInputMayHold) {
  auto state = std::make_shared<FakeChannel::State>();
  state->queue = {noise(100'000), ""};
  state->endAfter = 2;
  const auto run = pump(state, "", {.messages = true, .maxMessageBytes = 1000});
  EXPECT_EQ(run.problem, "");
  EXPECT_TRUE(run.output == frame(noise(100'000)) + frame(""));
}

TEST(ChannelPump, MessagesEndWhenThePeerCloses) {
  auto state = std::make_shared<FakeChannel::State>();
  state->endAfter = 2;
  const auto run = pump(state, frame("a") + frame("b"), {.messages = true, .waitS = 0});
  EXPECT_EQ(run.problem, "");
  EXPECT_EQ(run.output, frame("a") + frame("b"));
}

// --- messages and their ends -----------------------------------------------------------------------------------------

TEST(ChannelPump, AMessageThatIsUnderWayIsNoEnd) {
  for (const bool end : {false, true}) {
    auto state = std::make_shared<FakeChannel::State>();
    state->onFinish = [](auto&) {};
    state->underWay = [](auto&) { return 500; };
    const auto run = pump(state, frame("whole"), {.messages = true, .messagesEnd = end, .waitS = 1});
    EXPECT_EQ(run.problem, std::string(end ? "the peer hasn't ended its direction: " : "") +
                               "nothing came for 1 s, and a message is under way");
    EXPECT_NE(run.hint.find("--wait"), std::string::npos);
    EXPECT_EQ(run.output, frame("whole"));
    EXPECT_FALSE(state->closed);
  }
}

TEST(ChannelPump, ASlowMessageIsWaitedForAsLongAsMoreOfItComes) {
  auto state = std::make_shared<FakeChannel::State>();
  state->underWay = [asked = 0u](FakeChannel::State& channel) mutable {
    if (++asked < 3) return 100 * asked;
    if (asked == 3) channel.queue.push_back("slow");
    return 0u;
  };
  const auto run = pump(state, "", {.messages = true, .waitS = 1});
  EXPECT_EQ(run.problem, "");
  EXPECT_EQ(run.output, frame("slow"));
  EXPECT_TRUE(state->closed);
}

TEST(ChannelPump, EndsItsMessagesAtOnceAndWaitsForThePeersEnd) {
  auto state = std::make_shared<FakeChannel::State>();
  state->echo = false;
  state->onFinish = [](FakeChannel::State& channel) {
    channel.queue.push_back("an answer to the end");
    channel.end = proto::ChannelEnd::ENDED;
    channel.wake();
  };
  const auto run = pump(state, frame("all"), {.messages = true, .messagesEnd = true, .waitS = 0});
  EXPECT_EQ(run.problem, "");
  EXPECT_EQ(state->got, std::vector<std::string>{"all"});
  EXPECT_EQ(run.output, frame("an answer to the end"));
  EXPECT_TRUE(state->closed);
}

TEST(ChannelPump, APeerThatDoesNotEndItsMessagesIsAnError) {
  auto state = std::make_shared<FakeChannel::State>();
  state->onFinish = [](auto&) {};
  const auto run = pump(state, frame("whole"), {.messages = true, .messagesEnd = true, .waitS = 1});
  EXPECT_EQ(run.problem, "the peer hasn't ended its direction: nothing came for 1 s");
  EXPECT_EQ(run.output, frame("whole"));
  EXPECT_TRUE(state->finished);
}

TEST(ChannelPump, ThePeersEndOfItsMessagesIsNotOurs) {
  auto state = std::make_shared<FakeChannel::State>();
  state->end = proto::ChannelEnd::ENDED;
  state->onFinish = [](auto&) {};
  int in[2];
  int out[2];
  ASSERT_EQ(::pipe2(in, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(out, O_CLOEXEC), 0);
  std::thread program([&] {
    EXPECT_EQ(readAll(out[0]), "");  // the end is told
    const auto late = frame("late");
    EXPECT_EQ(::write(in[1], late.data(), late.size()), static_cast<ssize_t>(late.size()));
    ::close(in[1]);
  });
  {
    EventLoop loop;
    ChannelPump pump(loop, kj::heap<FakeChannel>(state),
                     {.messages = true, .messagesEnd = true, .waitS = 1, .inputFd = in[0], .outputFd = out[1]});
    EXPECT_EQ(loop.await(pump.run()), "");
  }
  program.join();
  EXPECT_EQ(state->got, std::vector<std::string>{"late"});
  EXPECT_TRUE(state->finished);
  for (const int fd : {in[0], out[0], out[1]}) ::close(fd);
}

TEST(ChannelPump, RefusesFramesThatTheChannelDoesNotTake) {
  auto state = std::make_shared<FakeChannel::State>();
  const auto run =
      pump(state, frame("whole") + frame(std::string(1001, 'x')), {.messages = true, .maxMessageBytes = 1000});
  EXPECT_EQ(run.problem, "standard input: a message of 1001 bytes, where 1000 are the most");
  EXPECT_EQ(state->got, std::vector<std::string>{"whole"});
  EXPECT_NE(pump(state, std::string("\x00\x01\x00\x00", 4), {.messages = true}).problem.find("65503 are the most"),
            std::string::npos);
  EXPECT_NE(pump(state, frame("whole") + std::string(1, '\0'), {.messages = true}).problem.find("inside a message"),
            std::string::npos);
  EXPECT_NE(pump(state, frame("cut").substr(0, 6), {.messages = true}).problem.find("inside a message"),
            std::string::npos);
  EXPECT_FALSE(state->closed);  // that would be an end, where the protocol has one
}

TEST(ChannelPump, TakesFilesWhichEpollRefuses) {
  auto state = std::make_shared<FakeChannel::State>();
  const auto input = noise(3'000'000);
  std::FILE* in = std::tmpfile();
  std::FILE* out = std::tmpfile();
  ASSERT_EQ(std::fwrite(input.data(), 1, input.size(), in), input.size());
  std::rewind(in);
  std::string problem;
  {
    EventLoop loop;
    ChannelPump pump(loop, kj::heap<FakeChannel>(state), {.inputFd = ::fileno(in), .outputFd = ::fileno(out)});
    problem = loop.await(pump.run());
  }
  EXPECT_EQ(problem, "");
  size_t total = 0;
  for (const auto& message : state->got) total += message.size();
  EXPECT_EQ(total, input.size());
  std::fclose(in);
  std::fclose(out);
}

TEST(ChannelPump, WorksOnOneSocketForBothDirections) {
  auto state = std::make_shared<FakeChannel::State>();
  int fds[2];
  ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
  const auto input = noise(2'000'000);
  std::string output;
  std::thread other([&] {
    std::thread writer([&] {
      size_t at = 0;
      while (at < input.size()) at += static_cast<size_t>(::write(fds[1], input.data() + at, input.size() - at));
      ::shutdown(fds[1], SHUT_WR);
    });
    output = readAll(fds[1]);
    writer.join();
  });
  std::string problem;
  {
    EventLoop loop;
    const int second = ::dup(fds[0]);
    ChannelPump pump(loop, kj::heap<FakeChannel>(state), {.inputFd = fds[0], .outputFd = second});
    problem = loop.await(pump.run());
    ::close(second);
  }
  other.join();
  EXPECT_EQ(problem, "");
  EXPECT_TRUE(output == input);
  ::close(fds[0]);
  ::close(fds[1]);
}

TEST(ChannelPump, AReaderThatLeavesIsAnError) {
  std::signal(SIGPIPE, SIG_IGN);
  auto state = std::make_shared<FakeChannel::State>();
  state->queue = {"bytes"};
  int in[2];
  int out[2];
  ASSERT_EQ(::pipe2(in, O_CLOEXEC), 0);
  ASSERT_EQ(::pipe2(out, O_CLOEXEC), 0);
  EventLoop loop;
  ChannelPump pump(loop, kj::heap<FakeChannel>(state), {.inputFd = in[0], .outputFd = out[1]});
  ::close(out[0]);
  EXPECT_NE(loop.await(pump.run()).find("standard output"), std::string::npos);
  for (const int fd : {in[0], in[1], out[1]}) ::close(fd);
}

}  // namespace
}  // namespace sallyport::cli
