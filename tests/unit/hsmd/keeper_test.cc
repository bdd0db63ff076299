// Goal: the keeper starts a worker behind each probe, tells its client what becomes of them, passes on no more than a
// worker has to tell, and goes on where a keeper before it has died.
// Method: a keeper in a thread, between sockets of which the test holds the other ends: client, launcher and child.
#include "hsmd/keeper.h"

#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <thread>

namespace sallyport::hsmd {
namespace {

using hsm::Status;

constexpr int LONG_MS = 30'000;  // on a machine that does much else
constexpr int SHORT_MS = 200;    // for what doesn't come

class KeeperTest : public testing::Test {
 protected:
  struct Pair {
    int keepers = -1, tests = -1;
    Pair() {
      std::array<int, 2> ends;
      EXPECT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()), 0);
      keepers = ends[0];
      tests = ends[1];
    }
    ~Pair() {
      close(keepers);
      close(tests);
    }
  };
  Pair control, launcher, birth;
  int board = SharedMemory::createPlain("board", BOARD_BYTES);
  std::optional<Keeper> keeper;
  std::thread thread;
  int ended = -1;

  ~KeeperTest() override {
    shutdown(control.tests, SHUT_RDWR);
    if (thread.joinable()) thread.join();
    close(board);
  }
  void start(uint32_t lastEpoch = 0, uint64_t stepMs = 60'000) {
    keeper.emplace(Keeper::Sockets{control.keepers, launcher.keepers, birth.keepers},
                   std::move(*SharedMemory::map(board, BOARD_BYTES)), "hsm1", stepMs, lastEpoch);
    thread = std::thread([this] { ended = keeper->run(); });
  }

  static bool comes(int socket, int waitMs) {
    pollfd wait{socket, POLLIN, 0};
    return poll(&wait, 1, waitMs) == 1;
  }
  // --- the launcher ---
  std::optional<LauncherOrder> ordered(int waitMs = LONG_MS) {
    LauncherOrder order{};
    if (!comes(launcher.tests, waitMs)) return std::nullopt;
    EXPECT_EQ(recv(launcher.tests, &order, sizeof order, 0), static_cast<ssize_t>(sizeof order));
    return order;
  }
  void expectOrder(Order what, uint32_t epoch) {
    const auto order = ordered();
    ASSERT_TRUE(order.has_value());
    EXPECT_EQ(order->order, what);
    EXPECT_EQ(order->epoch, epoch);
  }
  void event(Event what, int value) {
    const LauncherEvent told{.event = what, .value = value};
    ASSERT_EQ(send(launcher.tests, &told, sizeof told, 0), static_cast<ssize_t>(sizeof told));
  }
  // --- a child ---
  bool says(const hsm::Control& word) {
    const auto frame = hsm::writeControl(word);
    return send(birth.tests, frame.data(), frame.size(), MSG_DONTWAIT) == static_cast<ssize_t>(frame.size());
  }
  static hsm::WorkerLayer layer(uint32_t epoch) { return {.epoch = epoch, .layer = hsm::Bounded<16>::cut("seccomp")}; }
  void probe(uint32_t epoch) {
    expectOrder(Order::Probe, epoch);
    event(Event::Started, 100);
    ASSERT_TRUE(says(hsm::WorkerDied{.epoch = epoch, .pid = 100, .status = Status::Ok}));
    event(Event::Ended, 0);
  }
  void comeUp(uint32_t epoch, Status login = Status::Ok) {
    probe(epoch);
    expectOrder(Order::Serve, epoch);
    event(Event::Started, 101);
    ASSERT_TRUE(says(hsm::WorkerUp{.epoch = epoch, .pid = 1, .login = login}));
    const auto up = heard<hsm::WorkerUp>();
    EXPECT_EQ(up.epoch, epoch);
    EXPECT_EQ(up.pid, 101u) << "as the launcher says";
    EXPECT_EQ(up.login, login);
  }
  // --- the client ---
  std::optional<hsm::Control> heardAny(int waitMs = LONG_MS) {
    if (!comes(control.tests, waitMs)) return std::nullopt;
    hsm::ControlFrame frame;
    if (recv(control.tests, frame.data(), frame.size(), 0) != static_cast<ssize_t>(frame.size())) return std::nullopt;
    auto parsed = hsm::parseControl(frame);
    if (!parsed) return std::nullopt;
    return *parsed;
  }
  template <typename T>
  T heard() {
    const auto any = heardAny();
    EXPECT_TRUE(any.has_value() && std::holds_alternative<T>(*any));
    return any && std::holds_alternative<T>(*any) ? std::get<T>(*any) : T{};
  }
};

TEST_F(KeeperTest, ProbesThenServesAndTellsHowItEnded) {
  start();
  comeUp(1, Status::PinWrong);
  ASSERT_TRUE(says(layer(1)));
  EXPECT_EQ(heard<hsm::WorkerLayer>().layer.text(), "seccomp");
  ASSERT_TRUE(says(hsm::WorkerDied{.epoch = 1, .status = Status::DeviceRemoved}));
  event(Event::Ended, W_EXITCODE(1, 0));
  const auto died = heard<hsm::WorkerDied>();
  EXPECT_EQ(died.status, Status::DeviceRemoved);
  EXPECT_EQ(died.restartInMs, RestartPlan::FIRST_MS);
  comeUp(2);
}

TEST_F(KeeperTest, AWorkerThatDoesNotStopTalkingIsEndedForThatAndTheNextOneHeard) {
  start();
  comeUp(1);
  // The last of it is what a socket holds when the worker is gone.
  for (int i = 0; i < 1000; ++i) {
    if (!says(layer(1))) std::this_thread::yield();
  }
  expectOrder(Order::Kill, 1);
  while (says(layer(1))) continue;
  event(Event::Ended, SIGKILL);
  unsigned passedOn = 0;
  std::optional<hsm::WorkerDied> died;
  while (!died) {
    const auto any = heardAny();
    ASSERT_TRUE(any.has_value());
    if (std::holds_alternative<hsm::WorkerLayer>(*any)) ++passedOn;
    if (const auto* word = std::get_if<hsm::WorkerDied>(&*any)) died = *word;
  }
  EXPECT_LT(passedOn, Keeper::MOST_WORDS);
  EXPECT_EQ(died->status, Status::SaidTooMuch);
  comeUp(2);
  ASSERT_TRUE(says(layer(2)));
  heard<hsm::WorkerLayer>();
  EXPECT_FALSE(ordered(SHORT_MS).has_value()) << "it is blamed for what another one said";
}

TEST_F(KeeperTest, AProbeThatDoesNotStopTalkingIsEndedToo) {
  start();
  expectOrder(Order::Probe, 1);
  event(Event::Started, 100);
  const std::byte unreadable{1};
  for (unsigned i = 0; i <= Keeper::MOST_WORDS; ++i) ASSERT_EQ(send(birth.tests, &unreadable, i % 2, 0), i % 2);
  expectOrder(Order::Kill, 1);
  event(Event::Ended, SIGKILL);
  EXPECT_EQ(heard<hsm::WorkerDied>().status, Status::SaidTooMuch);
  comeUp(2);
}

TEST_F(KeeperTest, OneThatIsEndedForAFaultWaitsAndOneForItsClientsWishDoesNot) {
  start();
  uint32_t epoch = 1;
  comeUp(epoch);
  for (const auto reason : {hsm::KillReason::NewKey, hsm::KillReason::Deadline, hsm::KillReason::Garbage}) {
    const auto frame = hsm::writeControl(hsm::KillWorker{.epoch = epoch, .reason = reason});
    ASSERT_EQ(send(control.tests, frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
    expectOrder(Order::Kill, epoch);
    event(Event::Ended, SIGKILL);
    const auto died = heard<hsm::WorkerDied>();
    EXPECT_EQ(died.status, Status::ModuleFailed);
    EXPECT_EQ(died.restartInMs > 0, reason != hsm::KillReason::NewKey) << hsm::name(reason);
    comeUp(++epoch);
  }
}

TEST_F(KeeperTest, AnAbsentTokenIsNotAFaultOfTheWorkerAfterIt) {
  start();
  uint32_t epoch = 0;
  uint32_t last = 0;
  for (int i = 0; i < 3; ++i) {
    expectOrder(Order::Probe, ++epoch);
    event(Event::Started, 100);
    ASSERT_TRUE(says(hsm::WorkerDied{.epoch = epoch, .status = Status::NoToken}));
    event(Event::Ended, W_EXITCODE(1, 0));
    const auto died = heard<hsm::WorkerDied>();
    EXPECT_GT(died.restartInMs, last);
    last = died.restartInMs;
  }
  comeUp(++epoch);
  event(Event::Ended, SIGKILL);
  EXPECT_EQ(heard<hsm::WorkerDied>().restartInMs, RestartPlan::FIRST_MS);
}

TEST_F(KeeperTest, AClientForWhomSomebodyWaitsNeedntWaitForTheNextWorker) {
  start();
  uint32_t epoch = 0;
  uint32_t waitMs = 0;
  const auto ask = [&](uint32_t of, hsm::KillReason reason) {
    const auto frame = hsm::writeControl(hsm::KillWorker{.epoch = of, .reason = reason});
    ASSERT_EQ(send(control.tests, frame.data(), frame.size(), 0), static_cast<ssize_t>(frame.size()));
  };
  while (waitMs < RestartPlan::MOST_MS) {
    expectOrder(Order::Probe, ++epoch);
    event(Event::Started, 100);
    event(Event::Ended, SIGSEGV);
    waitMs = heard<hsm::WorkerDied>().restartInMs;
    // Not for another one's death, nor for its fault.
    ask(epoch - 1, hsm::KillReason::Operator);
    ask(epoch, hsm::KillReason::Deadline);
    if (waitMs == RestartPlan::MOST_MS) {
      EXPECT_FALSE(ordered(SHORT_MS).has_value());
    }
    ask(epoch, hsm::KillReason::Operator);
  }
  comeUp(++epoch);  // long before the time was over
}

TEST_F(KeeperTest, WhatAWorkerHasToSayIsNotTooMuch) {
  start();
  comeUp(1);
  for (unsigned i = 2; i < Keeper::MOST_WORDS; ++i) {
    ASSERT_TRUE(says(layer(1)));
    heard<hsm::WorkerLayer>();
  }
  ASSERT_TRUE(says(hsm::WorkerDied{.epoch = 1, .status = Status::SessionLimit}));
  event(Event::Ended, W_EXITCODE(1, 0));
  EXPECT_EQ(heard<hsm::WorkerDied>().status, Status::SessionLimit);
}

TEST_F(KeeperTest, AProbeThatHangsInATrialIsEndedAndTheNextOneGoesOnBehindIt) {
  auto memory = SharedMemory::map(board, BOARD_BYTES);
  ASSERT_TRUE(memory.has_value());
  auto& trials = memory->as<Board>();
  start(0, 2000);
  expectOrder(Order::Probe, 1);
  event(Event::Started, 100);
  ASSERT_TRUE(trials.begin("x25519"));
  trials.setCall("C_DeriveKey");
  expectOrder(Order::Kill, 1);
  event(Event::Ended, SIGKILL);
  const auto hung = heard<hsm::TrialHung>();
  EXPECT_EQ(hung.what.text(), "x25519, in C_DeriveKey");
  EXPECT_EQ(hung.afterMs, 2000u);
  probe(2);  // nothing has failed but the trial
  EXPECT_EQ(trials.find("x25519")->trial, hsm::Trial::TimedOut);
  expectOrder(Order::Serve, 2);
  event(Event::Started, 101);
  ASSERT_TRUE(says(hsm::WorkerUp{.epoch = 2, .pid = 101, .login = Status::Ok}));
  EXPECT_EQ(heard<hsm::WorkerUp>().epoch, 2u);
}

TEST_F(KeeperTest, AStartThatHangsIsToldWithTheCallThatDoesNotComeBack) {
  auto memory = SharedMemory::map(board, BOARD_BYTES);
  ASSERT_TRUE(memory.has_value());
  auto& trials = memory->as<Board>();
  start(0, 2000);
  uint32_t epoch = 1;
  expectOrder(Order::Probe, epoch);
  event(Event::Started, 100);
  trials.setCall("C_Initialize");
  expectOrder(Order::Kill, epoch);
  event(Event::Ended, SIGKILL);
  auto died = heard<hsm::WorkerDied>();
  EXPECT_EQ(died.status, Status::ModuleHangs);
  EXPECT_EQ(died.detail.text(), "no end of C_Initialize after 2 s");
  probe(++epoch);
  expectOrder(Order::Serve, epoch);
  event(Event::Started, 101);
  trials.setCall("C_OpenSession");
  expectOrder(Order::Kill, epoch);
  event(Event::Ended, SIGKILL);
  died = heard<hsm::WorkerDied>();
  EXPECT_EQ(died.status, Status::ModuleHangs);
  EXPECT_EQ(died.detail.text(), "no end of C_OpenSession after 2 s");
}

TEST_F(KeeperTest, ACrashIsToldWithItsCallAndAnEndOfItsOwnWithItsWords) {
  auto memory = SharedMemory::map(board, BOARD_BYTES);
  ASSERT_TRUE(memory.has_value());
  start();
  expectOrder(Order::Probe, 1);
  event(Event::Started, 100);
  memory->as<Board>().setCall("C_GetFunctionList");
  event(Event::Ended, SIGSEGV);
  auto died = heard<hsm::WorkerDied>();
  EXPECT_EQ(died.status, Status::Starting);
  EXPECT_EQ(died.detail.text(), "it was killed by SIGSEGV in C_GetFunctionList");
  expectOrder(Order::Probe, 2);
  event(Event::Started, 100);
  ASSERT_TRUE(says(hsm::WorkerDied{
      .epoch = 2, .status = Status::NoModule, .detail = hsm::Detail::cut("C_Initialize answered CKR_GENERAL_ERROR")}));
  event(Event::Ended, W_EXITCODE(1, 0));
  died = heard<hsm::WorkerDied>();
  EXPECT_EQ(died.status, Status::NoModule);
  EXPECT_EQ(died.detail.text(), "C_Initialize answered CKR_GENERAL_ERROR");
}

TEST_F(KeeperTest, MakingAnRsaKeyMayTakeLongerUnlessSomethingHasHungBefore) {
  auto memory = SharedMemory::map(board, BOARD_BYTES);
  ASSERT_TRUE(memory.has_value());
  auto& trials = memory->as<Board>();
  ASSERT_TRUE(trials.begin("seal: rsa", Board::Pace::Slow));
  EXPECT_TRUE(trials.mayBeSlow());
  trials.end("seal: rsa", hsm::Trial::Works, 0, 1);
  EXPECT_FALSE(trials.mayBeSlow());
  start(0, 1000);
  expectOrder(Order::Probe, 1);
  event(Event::Started, 100);
  ASSERT_TRUE(trials.begin("seal: rsa 2", Board::Pace::Slow));
  EXPECT_FALSE(ordered(3000).has_value());
  ASSERT_TRUE(trials.abandon(hsm::Trial::TimedOut));
  ASSERT_TRUE(trials.begin("seal: rsa 3", Board::Pace::Slow));
  expectOrder(Order::Kill, 1);
  event(Event::Ended, SIGKILL);
}

TEST_F(KeeperTest, WhatSomebodyElseKilledIsTriedAgain) {
  auto memory = SharedMemory::map(board, BOARD_BYTES);
  ASSERT_TRUE(memory.has_value());
  auto& trials = memory->as<Board>();
  start();
  expectOrder(Order::Probe, 1);
  event(Event::Started, 100);
  ASSERT_TRUE(trials.begin("x25519"));
  event(Event::Ended, SIGKILL);
  EXPECT_EQ(heard<hsm::WorkerDied>().status, Status::Starting);
  EXPECT_EQ(trials.find("x25519")->trial, hsm::Trial::Untried);
  comeUp(2);
  // The same with a module that crashes in it: that one isn't tried again.
  ASSERT_TRUE(says(hsm::WorkerDied{.epoch = 2, .status = Status::Ok}));
  event(Event::Ended, 0);
  heard<hsm::WorkerDied>();
  expectOrder(Order::Probe, 3);
  event(Event::Started, 102);
  ASSERT_TRUE(trials.begin("x25519"));
  event(Event::Ended, SIGSEGV);
  probe(4);
  EXPECT_EQ(trials.find("x25519")->trial, hsm::Trial::Crashed);
}

TEST_F(KeeperTest, AClientThatDidNotReadHearsHowTheWorkerIsWhenItReadsAgain) {
  start();
  const auto noise = hsm::writeControl(layer(77));
  while (send(control.keepers, noise.data(), noise.size(), MSG_DONTWAIT) > 0) continue;
  probe(1);
  expectOrder(Order::Serve, 1);
  event(Event::Started, 101);
  ASSERT_TRUE(says(hsm::WorkerUp{.epoch = 1, .pid = 1, .login = Status::Ok}));
  EXPECT_FALSE(ordered(SHORT_MS).has_value());
  std::optional<hsm::WorkerUp> up;
  while (const auto any = heardAny(up ? SHORT_MS : LONG_MS)) {
    if (const auto* word = std::get_if<hsm::WorkerUp>(&*any)) {
      EXPECT_FALSE(up.has_value()) << "once";
      up = *word;
    }
  }
  ASSERT_TRUE(up.has_value());
  EXPECT_EQ(up->epoch, 1u);
}

TEST_F(KeeperTest, OneThatFollowsADeadOneTellsSoAndCountsOn) {
  start(7);
  const auto died = heard<hsm::WorkerDied>();
  EXPECT_EQ(died.epoch, 7u);
  EXPECT_EQ(died.status, Status::KeeperDied);
  comeUp(8);
}

TEST_F(KeeperTest, EpochsBeginAnewBehindTheLastOne) {
  start(UINT32_MAX);
  EXPECT_EQ(heard<hsm::WorkerDied>().epoch, UINT32_MAX);
  comeUp(1);
}

TEST_F(KeeperTest, EndsWithItsClientAndWithTheLauncher) {
  start();
  expectOrder(Order::Probe, 1);
  shutdown(control.tests, SHUT_RDWR);
  thread.join();
  EXPECT_EQ(ended, 0);
  Pair otherControl;
  std::swap(control.keepers, otherControl.keepers);
  std::swap(control.tests, otherControl.tests);
  start();
  shutdown(launcher.tests, SHUT_RDWR);
  thread.join();
  EXPECT_EQ(ended, 1);
}

}  // namespace
}  // namespace sallyport::hsmd
