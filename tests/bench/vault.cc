// vault.cc - what a vault does per second, asked as netd asks it. Part of: tests/bench.
//
//   vault NET_SOCKET LISTEN_ENTRY SERVER_KEY_BASE64 CONNECT_ENTRY [--secs S] [--pids P,P]
//   vault NET_SOCKET LISTEN_ENTRY SERVER_KEY_BASE64 - --width N [--secs S] [--pids P,P]
//
// The second form asks for cookies alone, one a call, N calls under way all the time: with a key in a token each of
// them is one derive.
//
// The vault's LISTEN_ENTRY has the key SERVER_KEY and allows the key of CONNECT_ENTRY, whose peer is SERVER_KEY: so the
// vouches that it makes are good ones to verify. Hellos are made beforehand, each with an ephemeral key of its own: a
// sealed cookie is one cold box opened and one sealed. The answer is one line of JSON.
#include <sodium.h>

#include "common/capnp_bytes.h"
#include "common/config.h"
#include "common/rpc.h"
#include "netd/short_term_box.h"
#include "proto/vault.capnp.h"
#include "proto/wire/packet.h"
#include "tests/bench/calls.h"

namespace sallyport::bench {
namespace {

constexpr size_t HELLOS = 256;

struct Options {
  std::string listenEntry;
  std::string connectEntry;
  PublicKey server;
  double secs = 1.0;
  std::vector<int> pids;
  size_t width = 0;  // not 0: cookies alone
};

struct Vault {
  explicit Vault(const char* socket)
      : rpc(loop, connectUnix(socket), LinkLimits{}, [] { KJ_FAIL_REQUIRE("the vault has gone"); }),
        net(rpc.bootstrap().castAs<proto::Net>()) {}
  EventLoop loop;
  RpcClient rpc;
  proto::Net::Client net;
};

std::vector<wire::Hello> makeHellos(const PublicKey& server) {
  std::vector<wire::Hello> hellos;
  static constexpr std::array<std::byte, wire::HELLO_ZERO_BYTES> ZEROS{};
  for (size_t i = 0; i < HELLOS; ++i) {
    const netd::EphemeralPair pair = netd::makeEphemeralPair();
    const auto key = netd::agree(server, pair.secret);
    wire::Hello hello{pair.publicKey, {}};
    netd::sealBox(hello.box, ZEROS, netd::ShortPrefix::ClientHello, wire::HELLO_COUNTER, *key);
    hellos.push_back(hello);
  }
  return hellos;
}

// What the cryptography of a cookie allows one core: a Hello's box is opened and a Cookie packet's sealed under a key
// that is agreed on anew. No process, no call, no policy.
Direct cookiesWithoutAVault(double secs) {
  const netd::EphemeralPair own = netd::makeEphemeralPair();
  const auto hellos = makeHellos(own.publicKey);
  std::array<std::byte, wire::HELLO_ZERO_BYTES> zeros;
  const std::array<std::byte, wire::COOKIE_PACKET_BOX_BYTES - wire::BOX_TAG_BYTES> text{};
  std::array<std::byte, wire::COOKIE_PACKET_BOX_BYTES> box;
  return direct(secs, [&](size_t made) {
    const wire::Hello& hello = hellos[made % HELLOS];
    const auto key = netd::agree(hello.clientEphemeral, own.secret);
    KJ_REQUIRE(netd::openBox(zeros, hello.box, netd::ShortPrefix::ClientHello, wire::HELLO_COUNTER, *key));
    netd::sealBox(box, text, netd::ShortPrefix::ClientHello, made + 1, *key);
  });
}

void run(Vault& vault, const Options& options) {
  const auto hellos = makeHellos(options.server);
  const netd::EphemeralPair ephemeral = netd::makeEphemeralPair();
  const std::array<std::byte, wire::COOKIE_BYTES> cookie{};
  size_t next = 0;

  const auto sealCookies = [&](uint items) {
    auto request = vault.net.sealCookiesRequest();
    for (auto to : request.initHellos(items)) {
      const wire::Hello& hello = hellos[next++ % HELLOS];
      to.setEntry(options.listenEntry);
      to.setClientEphemeral(toData(hello.clientEphemeral.span()));
      to.setBox(toData(hello.box));
      to.setServerEphemeral(toData(ephemeral.publicKey.span()));
      to.setCookie(toData(cookie));
    }
    return request.send().then([items](capnp::Response<proto::Net::SealCookiesResults>&& response) {
      requireAll(response, items, [](auto outcome) { return outcome.isSealed(); });
    });
  };
  if (options.width != 0) {
    const double ownBefore = ownCpuSeconds();
    const Rate rate = bench::measure(vault.loop, options.secs, options.pids, options.width, 1, sealCookies);
    const double calls = rate.perSecond * options.secs;
    return report({{"per_s", rate.perSecond},
                   {"p50_us", rate.p50},
                   {"p99_us", rate.p99},
                   {"cpu_us", rate.cpuMicros},
                   {"own_cpu_us", (ownCpuSeconds() - ownBefore) * 1e6 / calls}});
  }
  const auto makeVouches = [&](uint items) {
    auto request = vault.net.makeVouchesRequest();
    for (auto to : request.initRequests(items)) {
      to.setEntry(options.connectEntry);
      to.setClientEphemeral(toData(ephemeral.publicKey.span()));
    }
    return request.send().then([items](capnp::Response<proto::Net::MakeVouchesResults>&& response) {
      requireAll(response, items, [](auto outcome) { return outcome.isMade(); });
    });
  };
  auto oneRequest = vault.net.makeVouchesRequest();
  auto one = oneRequest.initRequests(1)[0];
  one.setEntry(options.connectEntry);
  one.setClientEphemeral(toData(ephemeral.publicKey.span()));
  auto answer = vault.loop.await(kj::Promise<capnp::Response<proto::Net::MakeVouchesResults>>(oneRequest.send()));
  KJ_REQUIRE(answer.getOutcomes()[0].isMade(), "no vouch was made");
  // Copied: what is read of an answer is limited.
  const auto made = answer.getOutcomes()[0].getMade();
  const auto copy = [](capnp::Data::Reader data) {
    return std::vector<std::byte>(toBytes(data).begin(), toBytes(data).end());
  };
  const auto client = copy(made.getClient());
  const auto nonce = copy(made.getNonce());
  const auto box = copy(made.getBox());
  const auto verifyVouches = [&](uint items) {
    auto request = vault.net.verifyVouchesRequest();
    for (auto to : request.initVouches(items)) {
      to.setEntry(options.listenEntry);
      to.setClient(toData(client));
      to.setNonce(toData(nonce));
      to.setBox(toData(box));
      to.setClientEphemeral(toData(ephemeral.publicKey.span()));
    }
    return request.send().then([items](capnp::Response<proto::Net::VerifyVouchesResults>&& response) {
      requireAll(response, items, [](auto outcome) { return outcome.isPeer(); });
    });
  };

  const auto measure = [&](size_t width, uint items, auto& call) {
    return bench::measure(vault.loop, options.secs, options.pids, width, items, call);
  };
  const Rate single = measure(1, 1, sealCookies);
  const Rate wide = measure(64, 1, sealCookies);
  const Rate batched = measure(2, MAX_ITEMS, sealCookies);
  const Rate verified = measure(2, MAX_ITEMS, verifyVouches);
  const Rate vouched = measure(2, MAX_ITEMS, makeVouches);
  const Rate knownSingle = measure(1, 1, verifyVouches);
  const Direct alone = cookiesWithoutAVault(options.secs);
  report({{"cookies_direct", alone.perSecond},
          {"cookies_direct_cpu_us", alone.cpuMicros},
          {"cookies_1", single.perSecond},
          {"cookies_1_p50_us", single.p50},
          {"cookies_1_p99_us", single.p99},
          {"cookies_64", wide.perSecond},
          {"cookies_64_p99_us", wide.p99},
          {"cookies_batch", batched.perSecond},
          {"cookies_batch_cpu_us", batched.cpuMicros},
          {"verify_batch", verified.perSecond},
          {"verify_batch_cpu_us", verified.cpuMicros},
          {"make_batch", vouched.perSecond},
          {"make_batch_cpu_us", vouched.cpuMicros},
          {"verify_1_p50_us", knownSingle.p50},
          {"verify_1_p99_us", knownSingle.p99}});
}

int main(int argc, char** argv) {
  if (argc < 5) return std::fputs("usage: see the top of tests/bench/vault.cc\n", stderr), 2;
  KJ_REQUIRE(sodium_init() >= 0);
  const auto server = parsePublicKey(argv[3]);
  KJ_REQUIRE(server.has_value(), "not a public key");
  Options options{.listenEntry = argv[2], .connectEntry = argv[4], .server = *server, .pids = {}};
  takeOptions(argc, argv, 5, options.secs, options.pids, [&](const std::string& name, const char* value) {
    if (name == "--width") options.width = std::strtoul(value, nullptr, 10);
  });
  Vault vault(argv[1]);
  run(vault, options);
  std::_Exit(0);
}

}  // namespace
}  // namespace sallyport::bench

int main(int argc, char** argv) {
  try {
    return sallyport::bench::main(argc, argv);
  } catch (const kj::Exception& e) {
    std::fprintf(stderr, "vault: error: %s\n", e.getDescription().cStr());
    return 1;
  }
}
