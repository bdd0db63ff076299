// Goal: a key file's text is read by the letter: what is taken is written again as the same bytes.
#include "tests/fuzz/input.h"
#include "tests/sim/dice.h"
#include "vaultd/key_format.h"
#include "vaultd/key_shares.h"
#include "vaultd/key_transfer.h"

using namespace sallyport;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  sim::installDice();
  return 0;
}

namespace {

void tryText(std::string_view text, vaultd::KeyDocument document) {
  const auto sealed = vaultd::parseKeyText(text, document);
  if (!sealed) {
    CHECK(!sealed.error().message.empty());
    return;
  }
  const auto& header = sealed->header;
  CHECK(vaultd::isKeyName(header.name) && !header.versions.empty() && !header.slots.empty());
  for (const auto& version : header.versions) static_cast<void>(vaultd::stateOf(version, version.activeFrom));
  // Stretching a passphrase costs a second on purpose: not here. The file key of all zeros plays its part.
  const vaultd::FileKey zeros;
  static_cast<void>(vaultd::openKey(*sealed, zeros));
  if (sealed->format == 2 && header.seal != vaultd::SealKind::Plain) {
    // With the same slots and the mac that belongs to it, the text is the same up to the mac.
    const auto again = vaultd::withSlots(*sealed, header.slots, zeros);
    const auto shown = again.expose();
    CHECK(shown.substr(0, shown.rfind("mac: ")) == text.substr(0, text.rfind("mac: ")));
  }
  if (header.seal != vaultd::SealKind::Plain) return;
  const auto opened = vaultd::openSealed(*sealed, {});
  if (!opened || !header.token.empty()) return;  // of a key in a token the token proves the public key
  for (const auto& version : opened->versions)
    CHECK(vaultd::publicKeyOf(version.secret, header.kind) == version.version.publicKey);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sim::drawnSecrets.clear();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static_cast<void>(vaultd::parseSecret(text));
  static_cast<void>(vaultd::parseGivenSecret(text));
  const auto share = vaultd::parseShare(text);
  if (share) CHECK(vaultd::parseShare(vaultd::shareText(*share).expose())->x == share->x);
  static_cast<void>(vaultd::parseImportKey(text));
  for (const auto document : {vaultd::KeyDocument::Key, vaultd::KeyDocument::Backup}) tryText(text, document);
  return 0;
}
