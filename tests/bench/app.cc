// app.cc - what a vault does for programs per second. Part of: tests/bench.
//
//   app APP_SOCKET BOX_KEY SIGN_KEY KNOWN_PEER DOMAIN [--secs S] [--pids P,P] [--only ROW]
//
// This program may do everything with BOX_KEY (X25519) and SIGN_KEY (Ed25519), and draw nonces in DOMAIN. Cold boxes
// are to and from peers that nobody has named, another one each time; KNOWN_PEER is a name in [peers]. Beside them
// stands what libsodium does alone, in a loop. The answer is one line of JSON.
#include <sodium.h>

#include "common/capnp_bytes.h"
#include "common/rpc.h"
#include "common/secret_bytes.h"
#include "proto/vault.capnp.h"
#include "tests/bench/calls.h"

namespace sallyport::bench {
namespace {

constexpr size_t PEERS = 256;
constexpr size_t TEXT_BYTES = 64;

struct Options {
  std::string boxKey;
  std::string signKey;
  std::string knownPeer;
  std::string domain;
  double secs = 1.0;
  std::vector<int> pids;
  std::string only;  // for a profile: this row alone
};

struct PairTag;
struct Peer {
  PublicKey publicKey;
  SecretBytes<PairTag, 32> secret;
  std::array<std::byte, 24> nonce;  // of a box from this peer to the vault's key
  std::array<std::byte, TEXT_BYTES + crypto_box_MACBYTES> box;
};

std::array<std::byte, TEXT_BYTES> text() { return {}; }

std::vector<Peer> makePeers(ByteSpan vaultKey) {
  std::vector<Peer> peers(PEERS);
  for (Peer& peer : peers) {
    crypto_box_keypair(peer.publicKey.data(), peer.secret.exposeData());
    fillRandom(peer.nonce);
    std::memcpy(peer.nonce.data(), "SallyBox", 8);
    const auto plain = text();
    KJ_REQUIRE(crypto_box_easy(uchars(MutableByteSpan(peer.box)), uchars(ByteSpan(plain)), plain.size(),
                               uchars(ByteSpan(peer.nonce)), uchars(vaultKey), peer.secret.exposeData()) == 0);
  }
  return peers;
}

class Program {
 public:
  Program(const char* socket, Options options)
      : options_(std::move(options)),
        rpc_(loop_, connectUnix(socket), LinkLimits{}, [] { KJ_FAIL_REQUIRE("the vault has gone"); }),
        app_(rpc_.bootstrap().castAs<proto::App>()),
        boxKey_(keyNamed(options_.boxKey)),
        signKey_(keyNamed(options_.signKey)) {}

  void run() {
    const auto peers = makePeers(publicKey(options_.boxKey));
    size_t next = 0;
    const auto plain = text();
    const auto box = [&](uint items, bool known) {
      auto request = boxKey_.boxRequest();
      for (auto item : request.initItems(items)) {
        if (known)
          item.getPeer().setName(options_.knownPeer);
        else
          item.getPeer().setKey(toData(peers[next++ % PEERS].publicKey.span()));
        item.setText(toData(plain));
      }
      return request.send().then([items](capnp::Response<proto::Key::BoxResults>&& response) {
        requireAll(response, items, [](auto outcome) { return outcome.isBoxed(); });
      });
    };
    const auto coldBox = [&](uint items) { return box(items, false); };
    const auto knownBox = [&](uint items) { return box(items, true); };
    const auto coldOpen = [&](uint items) {
      auto request = boxKey_.openRequest();
      for (auto item : request.initItems(items)) {
        const Peer& peer = peers[next++ % PEERS];
        item.getPeer().setKey(toData(peer.publicKey.span()));
        item.setNonce(toData(peer.nonce));
        item.setBox(toData(peer.box));
      }
      return request.send().then([items](capnp::Response<proto::Key::OpenResults>&& response) {
        requireAll(response, items, [](auto outcome) { return outcome.isOpened(); });
      });
    };
    const auto sign = [&](uint items) {
      auto request = signKey_.signRequest();
      auto list = request.initMessages(items);
      for (uint i = 0; i < items; ++i) list.set(i, toData(plain));
      return request.send().then([items](capnp::Response<proto::Key::SignResults>&& response) {
        requireAll(response, items, [](auto outcome) { return outcome.isSigned(); });
      });
    };
    const auto nonces = [&](uint items) {
      auto request = boxKey_.freshNoncesRequest();
      request.setDomain(options_.domain);
      request.setCount(items);
      return request.send().then([items](capnp::Response<proto::Key::FreshNoncesResults>&& response) {
        KJ_REQUIRE(response.getOutcome().isNonces() && response.getOutcome().getNonces().size() == items);
      });
    };

    std::vector<std::pair<std::string, double>> figures;
    const auto row = [&](const std::string& name, size_t width, uint items, auto& call) {
      if (!options_.only.empty() && options_.only != name) return;
      const Rate rate = measure(loop_, options_.secs, options_.pids, width, items, call);
      figures.emplace_back(name, rate.perSecond);
      figures.emplace_back(name + "_p50_us", rate.p50);
      figures.emplace_back(name + "_p99_us", rate.p99);
      figures.emplace_back(name + "_cpu_us", rate.cpuMicros);
    };
    row("box_1", 1, 1, coldBox);
    row("open_1", 1, 1, coldOpen);
    row("box_64", 64, 1, coldBox);
    row("box_batch", 2, MAX_ITEMS, coldBox);
    row("open_batch", 2, MAX_ITEMS, coldOpen);
    row("known_1", 1, 1, knownBox);
    row("known_64", 64, 1, knownBox);
    row("known_batch", 2, MAX_ITEMS, knownBox);
    row("sign_1", 1, 1, sign);
    row("sign_64", 64, 1, sign);
    row("sign_batch", 2, MAX_ITEMS, sign);
    row("nonces_batch", 2, MAX_ITEMS, nonces);
    const auto alone = [&](const std::string& name, auto&& work) {
      const Direct rate = direct(options_.secs / 2, work);
      figures.emplace_back(name, rate.perSecond);
      figures.emplace_back(name + "_cpu_us", rate.cpuMicros);
    };
    // No process, no call, no policy, no freshness.
    std::array<std::byte, TEXT_BYTES + crypto_box_MACBYTES> sealed;
    const auto out = uchars(MutableByteSpan(sealed));
    const auto in = uchars(ByteSpan(plain));
    const std::array<unsigned char, crypto_box_BEFORENMBYTES> shared{};
    std::array<unsigned char, crypto_sign_SECRETKEYBYTES> secret;
    std::array<unsigned char, crypto_sign_PUBLICKEYBYTES> signer;
    std::array<unsigned char, crypto_sign_BYTES> signature;
    crypto_sign_keypair(signer.data(), secret.data());
    alone("box_direct", [&](size_t i) {
      const Peer& peer = peers[i % PEERS];
      KJ_REQUIRE(crypto_box_easy(out, in, TEXT_BYTES, uchars(ByteSpan(peer.nonce)), peer.publicKey.data(),
                                 peers[0].secret.exposeData()) == 0);
    });
    alone("known_direct", [&](size_t i) {
      crypto_box_easy_afternm(out, in, TEXT_BYTES, uchars(ByteSpan(peers[i % PEERS].nonce)), shared.data());
    });
    alone("sign_direct",
          [&](size_t) { crypto_sign_detached(signature.data(), nullptr, in, TEXT_BYTES, secret.data()); });
    alone("nonces_direct", [&](size_t) { randombytes_buf(signature.data(), 16); });
    std::vector<std::pair<const char*, double>> named;
    for (const auto& [name, value] : figures) named.emplace_back(name.c_str(), value);
    report(named);
  }

 private:
  proto::Key::Client keyNamed(const std::string& name) {
    auto request = app_.keyRequest();
    request.setName(name);
    auto answer = loop_.await(kj::Promise<capnp::Response<proto::App::KeyResults>>(request.send()));
    KJ_REQUIRE(answer.getOutcome().isGranted(), name);
    return answer.getOutcome().getGranted().getKey();
  }
  std::vector<std::byte> publicKey(const std::string& name) {
    auto request = app_.publicKeyRequest();
    request.setKey(name);
    auto answer = loop_.await(kj::Promise<capnp::Response<proto::App::PublicKeyResults>>(request.send()));
    KJ_REQUIRE(answer.getOutcome().isPublicKey(), name);
    const ByteSpan bytes = toBytes(answer.getOutcome().getPublicKey());
    return {bytes.begin(), bytes.end()};
  }

  Options options_;
  EventLoop loop_;
  RpcClient rpc_;
  proto::App::Client app_;
  proto::Key::Client boxKey_;
  proto::Key::Client signKey_;
};

int main(int argc, char** argv) {
  if (argc < 6) return std::fputs("usage: see the top of tests/bench/app.cc\n", stderr), 2;
  KJ_REQUIRE(sodium_init() >= 0);
  Options options{
      .boxKey = argv[2], .signKey = argv[3], .knownPeer = argv[4], .domain = argv[5], .pids = {}, .only = {}};
  takeOptions(argc, argv, 6, options.secs, options.pids, [&](const std::string& name, const char* value) {
    if (name == "--only") options.only = value;
  });
  Program(argv[1], std::move(options)).run();
  std::_Exit(0);
}

}  // namespace
}  // namespace sallyport::bench

int main(int argc, char** argv) {
  try {
    return sallyport::bench::main(argc, argv);
  } catch (const kj::Exception& e) {
    std::fprintf(stderr, "app: error: %s\n", e.getDescription().cStr());
    return 1;
  }
}
