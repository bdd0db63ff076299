// Goal: no crash makes a nonce come twice.
// Method: the real vaultd, killed with SIGKILL in the middle of its work, a thousand times: every nonce that left it is
// distinct, and their counters only grow. The test knows the secret keys, so it can decrypt nonces; it reads the
// instance id from the state file. SALLYPORT_VAULTD names the program, SALLYPORT_KILL_ROUNDS the number of rounds.
#include <gtest/gtest.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <random>
#include <thread>

#include "common/rpc.h"
#include "proto/vault.capnp.h"
#include "tests/unit/vaultd/memory_disk.h"
#include "tests/unit/vaultd/support.h"
#include "vaultd/key_file.h"

extern char** environ;

namespace sallyport::vaultd {
namespace {

using test::vector;

constexpr std::string_view CONFIG = R"(
[vault]
keys = "keys"
socket = "run/vault.sock"
handshakes_per_second = 1000000
require_sandbox = "available"

[[listen]]
name = "in"
address = "127.0.0.1:7001"
key = "server"
allow = ["alice"]
service = "echo"

[[connect]]
name = "out"
address = "127.0.0.1:7001"
key = "alice"
peer = "server"

[peers]
alice = "D6poTtKIZ7l/Smot7l34zpdOdrcBjj8iocTPJnhXDyA="
server = "UQ1lNB1tiMRWWyJbAxOWA9cr0gnykne8mfVO6F5xJS8="
)";

capnp::Data::Reader raw(ByteSpan bytes) { return {reinterpret_cast<const kj::byte*>(bytes.data()), bytes.size()}; }

class Daemon {
 public:
  Daemon(const char* program, const std::filesystem::path& folder) {
    const std::string config = (folder / "sallyport.toml").string();
    const char* arguments[] = {program, "-c", config.c_str(), nullptr};
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 2, (folder / "log").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    CHECK(posix_spawn(&pid_, program, &actions, nullptr, const_cast<char**>(arguments), environ) == 0);
    posix_spawn_file_actions_destroy(&actions);
  }
  ~Daemon() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
    pid_ = 0;
  }

 private:
  pid_t pid_ = 0;
};

InstanceId instanceIn(const std::filesystem::path& file) {
  // Both slots hold it; the test has nothing damaged, so either will do. Layout: vaultd/nonce_ledger.cc.
  InstanceId instance;
  const std::string content = test::readFile(file);
  CHECK(content.size() == NonceLedger::FILE_BYTES);
  std::memcpy(instance.data(), content.data() + 32, instance.size());
  return instance;
}

// What one role of one key has given out so far.
struct Track {
  std::filesystem::path file;
  BoxRole role;
  std::vector<std::byte> secret;
  std::optional<uint64_t> highest;
  uint64_t seen = 0;
  std::vector<LongNonceBytes> round{};

  void judge() {
    const NonceKey key = deriveNonceKey(std::span<const std::byte, 32>(secret), role, instanceIn(file));
    const std::optional<uint64_t> before = highest;
    std::set<uint64_t> counters;
    for (const LongNonceBytes& nonce : round) {
      const uint64_t counter = test::counterOf(nonce, key);
      ASSERT_TRUE(counters.insert(counter).second) << "counter " << counter << " twice in one round";
      ASSERT_TRUE(!before || counter > *before) << "counter " << counter << " is not above " << *before;
      ASSERT_LT(counter, NonceLedger::END);
      highest = std::max(highest.value_or(0), counter);
    }
    seen += round.size();
    round.clear();
  }
};

TEST(KillRounds, EveryNonceIsDistinctAndCountersOnlyGrow) {
  const char* program = std::getenv("SALLYPORT_VAULTD");
  if (program == nullptr) GTEST_SKIP() << "SALLYPORT_VAULTD is not set";
  const char* wanted = std::getenv("SALLYPORT_KILL_ROUNDS");
  const int rounds = wanted == nullptr ? 1000 : std::atoi(wanted);

  test::TemporaryFolder temporary;
  // The vault's own user must be able to pass when the test runs as root.
  std::filesystem::permissions(temporary.path(), std::filesystem::perms(0755));
  const auto keys = temporary.path() / "keys";
  ASSERT_TRUE(importKey(keys, "server", LongTermSecret(vector("Ss")), {}).has_value());
  ASSERT_TRUE(importKey(keys, "alice", LongTermSecret(vector("Cs")), {}).has_value());
  test::writeFile(temporary.path() / "sallyport.toml", CONFIG);

  Track cookies{noncePath(keys, "server"), BoxRole::Cookie, vector("Ss"), {}};
  Track vouches{noncePath(keys, "alice"), BoxRole::Vouch, vector("Cs"), {}};
  std::minstd_rand random(1);
  for (int round = 0; round < rounds; ++round) {
    Daemon daemon(program, temporary.path());
    EventLoop loop;
    int fd = -1;
    for (int attempt = 0; fd < 0 && attempt < 5000; ++attempt) {
      try {
        fd = connectUnix(temporary.path() / "run" / "vault-net.sock");
      } catch (const kj::Exception&) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); }
    }
    ASSERT_GE(fd, 0) << "round " << round << "\n" << test::readFile(temporary.path() / "log");
    bool gone = false;
    RpcClient client(loop, fd, LinkLimits(), [&] { gone = true; });
    auto net = client.bootstrap().castAs<proto::Net>();

    // Several calls under way at once; the kill comes between any two answers, or while the vault still works.
    unsigned answers = 0;
    kj::Vector<kj::Promise<void>> calls;
    for (int call = 0; call < 8; ++call) {
      auto makeVouches = net.makeVouchesRequest();
      for (auto one : makeVouches.initRequests(1 + static_cast<unsigned>(random() % 64))) {
        one.setEntry("out");
        one.setClientEphemeral(raw(vector("EC")));
      }
      calls.add(makeVouches.send()
                    .then(
                        [&](auto&& answer) {
                          ++answers;
                          for (auto outcome : answer.getOutcomes()) {
                            ASSERT_TRUE(outcome.isMade());
                            auto nonce = outcome.getMade().getNonce();
                            vouches.round.push_back(
                                LongNonceBytes(std::as_bytes(std::span(nonce.begin(), nonce.size()))));
                          }
                        },
                        [](kj::Exception&&) {})
                    .eagerlyEvaluate(nullptr));
      auto sealCookies = net.sealCookiesRequest();
      auto hello = sealCookies.initHellos(1)[0];
      hello.setEntry("in");
      hello.setClientEphemeral(raw(vector("EC")));
      hello.setBox(raw(ByteSpan(vector("hello")).subspan(48)));
      hello.setServerEphemeral(raw(vector("ES")));
      hello.setCookie(raw(vector("K")));
      calls.add(sealCookies.send()
                    .then(
                        [&](auto&& answer) {
                          ++answers;
                          ASSERT_TRUE(answer.getOutcomes()[0].isSealed());
                          auto nonce = answer.getOutcomes()[0].getSealed().getNonce();
                          cookies.round.push_back(
                              LongNonceBytes(std::as_bytes(std::span(nonce.begin(), nonce.size()))));
                        },
                        [](kj::Exception&&) {})
                    .eagerlyEvaluate(nullptr));
    }
    const unsigned enough = static_cast<unsigned>(random() % 16);
    while (!gone && answers < enough) loop.turn(1000);
    daemon.kill();
    while (!gone) loop.turn(1000);
    cookies.judge();
    vouches.judge();
    if (HasFatalFailure()) FAIL() << "in round " << round;
  }
  EXPECT_GT(cookies.seen, static_cast<uint64_t>(rounds));
  EXPECT_GT(vouches.seen, static_cast<uint64_t>(rounds) * 10);
  std::printf("%d rounds: %lu cookies, %lu vouches\n", rounds, static_cast<unsigned long>(cookies.seen),
              static_cast<unsigned long>(vouches.seen));
}

}  // namespace
}  // namespace sallyport::vaultd
