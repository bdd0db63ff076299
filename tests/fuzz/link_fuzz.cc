// Goal: the screen in front of libcapnp lets through only whole messages of a client, within every limit.
// Method: raw bytes, in pieces, into a Link over a socket pair; what it delivers is walked through.
#include <sys/socket.h>
#include <unistd.h>

#include <utility>

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>

#include "common/event_loop.h"
#include "common/link.h"
#include "common/quiet_kj.h"
#include "tests/fuzz/input.h"

using namespace sallyport;

namespace {

constexpr LinkLimits LIMITS = {
    .maxMessageBytes = 4096, .maxSegments = 4, .maxQueuedBytes = 8192, .maxOpenQuestions = 4, .stallTimeoutMs = 10000};

struct Reader {
  Reader(EventLoop& eventLoop, int fd, LinkSide linkSide)
      : side(linkSide), link(kj::heap<Link>(eventLoop, fd, linkSide, LIMITS)) {}

  void next() {
    waiting = link->tryReadMessage(nullptr, capnp::ReaderOptions(), nullptr)
                  .then([this](kj::Maybe<capnp::MessageReaderAndFds> message) { onMessage(kj::mv(message)); })
                  .eagerlyEvaluate([](kj::Exception&&) { CHECK(!"a link throws"); });
  }

  void onMessage(kj::Maybe<capnp::MessageReaderAndFds> message) {
    KJ_IF_MAYBE (got, message) {
      CHECK(!ended);
      ++count;
      try {
        auto root = got->reader->getRoot<capnp::rpc::Message>();
        CHECK(root.totalSize().wordCount <= LIMITS.maxMessageBytes / sizeof(capnp::word) * 24);
        if (side == LinkSide::Server && root.isCall()) CHECK(root.getCall().getParams().getCapTable().size() == 0);
      } catch (const kj::Exception&) {}
      if (answers) {
        capnp::MallocMessageBuilder answer;
        answer.initRoot<capnp::rpc::Message>().initAbort().setReason(std::string(200, 'x').c_str());
        waitingWrite = link->writeMessage(nullptr, answer.getSegmentsForOutput());
      }
      again = true;
    } else {
      ended = true;
    }
  }

  LinkSide side;
  bool answers = false;
  bool again = false;
  bool ended = false;
  size_t count = 0;
  kj::Own<Link> link;
  kj::Promise<void> waiting = nullptr;
  kj::Promise<void> waitingWrite = nullptr;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  QuietKj quiet;
  static EventLoop loop;
  fuzz::Input input(data, size);
  const uint8_t mode = input.byte();
  const size_t piece = std::array<size_t, 4>{7, 64, 1000, 100000}[mode % 4];
  std::array<int, 2> ends;
  CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends.data()) == 0);
  {
    Reader reader(loop, ends[0], (mode & 4) != 0 ? LinkSide::Client : LinkSide::Server);
    reader.answers = (mode & 8) != 0;
    reader.next();
    const auto turn = [&] {
      // Until it waits: what came in one piece may be hundreds of messages.
      do {
        if (std::exchange(reader.again, false)) reader.next();
        loop.turn(0);
      } while (reader.again);
    };
    while (!input.empty()) {
      const ByteSpan bytes = input.take(piece);
      if (send(ends[1], bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) break;
      turn();
      if ((mode & 16) != 0) {  // it reads its answers
        std::array<std::byte, 4096> sink;
        static_cast<void>(recv(ends[1], sink.data(), sink.size(), MSG_DONTWAIT));
      }
    }
    if ((mode & 32) != 0) shutdown(ends[1], SHUT_WR);
    for (int i = 0; i < 4; ++i) turn();
    if (reader.link->cutOff() != CutOff::None) CHECK(reader.ended);
    reader.waiting = nullptr;
  }
  close(ends[1]);
  loop.turn(0);
  return 0;
}
