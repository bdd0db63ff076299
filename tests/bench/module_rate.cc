// module_rate.cc - what a PKCS#11 module does by itself: X25519 derives in this process, no sandbox, no frames, no
// other process. Part of: tests/bench. What hsmd adds is the difference.
//
//   module_rate MODULE LABEL PIN_FILE SPELLING [--init TEXT] [--secs S] [--session]
//
// Makes a key in the token (SPELLING: montgomery, montgomery-name, edwards-name, ec; with --session: in the session),
// derives with it one after the other, and destroys it. A derive is all that hsmd has to do for one: C_DeriveKey, read
// the value, destroy the object. The answer is one line of JSON.
#include <sodium.h>

#include <fstream>
#include <map>

#include "tests/bench/measure.h"
#include "tests/mock_pkcs11/loaded_module.h"

namespace sallyport::bench {
namespace {

struct Options {
  std::string module, label, pinFile, spelling, init;
  double secs = 1.0;
  bool inSession = false;
};

std::string firstLine(const std::string& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

[[noreturn]] void fail(const char* what, CK_RV rv) {
  std::fprintf(stderr, "module_rate: %s: 0x%lx\n", what, rv);
  std::exit(1);
}

void run(const Options& options) {
  const std::map<std::string, test::CurveSpelling> spellings = {{"montgomery", test::MONTGOMERY},
                                                                {"montgomery-name", test::MONTGOMERY_NAME},
                                                                {"edwards-name", test::EDWARDS_NAME},
                                                                {"ec", test::WEIERSTRASS}};
  const auto require = [](CK_RV rv, const char* what) {
    if (rv != CKR_OK) fail(what, rv);
  };
  test::LoadedModule module(options.module);
  CK_SESSION_HANDLE session = 0;
  CK_OBJECT_HANDLE publicKey = 0, privateKey = 0;
  require(module.initialize(options.init.empty() ? nullptr : options.init.c_str()), "C_Initialize");
  require(module.openSession(session, options.label), "C_OpenSession");
  require(module.login(session, firstLine(options.pinFile)), "C_Login");
  require(
      module.generate(session, spellings.at(options.spelling), {0xbe, 0x9c}, publicKey, privateKey, !options.inSession),
      "C_GenerateKeyPair");
  test::Octets ephemeral(32), peer(32), shared;
  std::vector<double> latencies;
  const double began = now();
  const double cpuBefore = ownCpuSeconds();
  double before = began;
  do {
    randombytes_buf(peer.data(), peer.size());
    before = now();
    require(module.derive(session, privateKey, peer, shared), "C_DeriveKey");
    latencies.push_back((now() - before) * 1e6);
  } while (before < began + options.secs);
  const double took = now() - began;
  const auto count = static_cast<double>(latencies.size());
  const double cpu = (ownCpuSeconds() - cpuBefore) * 1e6 / count;
  module->C_DestroyObject(session, privateKey);
  module->C_DestroyObject(session, publicKey);
  double sum = 0;
  for (const double latency : latencies) sum += latency;
  report({{"derives_per_s", count / took},
          {"mean_us", sum / count},
          {"p50_us", percentile(latencies, 0.5)},
          {"p99_us", percentile(latencies, 0.99)},
          {"cpu_us", cpu}});
}

}  // namespace
}  // namespace sallyport::bench

int main(int argc, char** argv) {
  if (argc < 5 || sodium_init() < 0) return 2;
  sallyport::bench::Options options{argv[1], argv[2], argv[3], argv[4], ""};
  for (int i = 5; i < argc; ++i) {
    const std::string word = argv[i];
    if (word == "--session") options.inSession = true;
    if (word == "--init" && i + 1 < argc) options.init = argv[++i];
    if (word == "--secs" && i + 1 < argc) options.secs = std::strtod(argv[++i], nullptr);
  }
  sallyport::bench::run(options);
}
