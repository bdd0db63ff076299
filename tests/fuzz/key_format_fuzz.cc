// Goal: a key file's text is read by the letter: what is taken is written again as the same bytes.
#include "tests/fuzz/input.h"
#include "tests/sim/dice.h"
#include "vaultd/key_format.h"

using namespace sallyport;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  sim::installDice();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sim::drawnSecrets.clear();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static_cast<void>(vaultd::parseSecret(text));
  const auto sealed = vaultd::parseKeyText(text);
  if (!sealed) {
    CHECK(!sealed.error().message.empty());
    return 0;
  }
  const auto& header = sealed->header;
  CHECK(vaultd::isKeyName(header.name));
  CHECK(header.cost.opsLimit <= vaultd::MAX_OPS_LIMIT && header.cost.memLimitBytes <= vaultd::MAX_MEM_LIMIT_BYTES);
  // Stretching a passphrase costs a second on purpose: not here.
  if (header.seal == vaultd::SealKind::Passphrase) return 0;
  const auto secret = vaultd::SecretText::copyOf("a credential of thirty-two bytes or more");
  const auto opened = vaultd::openSealed(*sealed, secret);
  if (!opened) return 0;
  CHECK(vaultd::publicKeyOf(opened->versions[0].secret) == header.versions[0].publicKey);
  if (header.seal != vaultd::SealKind::Plain) return 0;
  const auto again = vaultd::sealedText(header.name, opened->versions[0].secret, {}, header.created);
  CHECK(again.has_value() && again->expose() == text);
  return 0;
}
