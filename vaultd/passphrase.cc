// passphrase.cc - see passphrase.h.
#include "vaultd/passphrase.h"

#include <unistd.h>

#include <cstdlib>
#include <memory>

#include "vaultd/terminal_prompt.h"

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

std::optional<fs::path> credentialPath(std::string_view name) {
  const char* folder = std::getenv("CREDENTIALS_DIRECTORY");
  if (folder == nullptr || *folder == '\0') return std::nullopt;
  return fs::path(folder) / name;
}

// A passphrase is the first line: editors add a newline.
SecretText firstLine(SecretText text) {
  const size_t end = text.expose().find_first_of("\r\n");
  if (end != std::string_view::npos) text.shrinkTo(end);
  return text;
}

// Standard input is a terminal, but maybe one that can only be read: ours is better.
Result<SecretText, Problem> askTerminal(const std::string& name) {
  const kj::AutoCloseFd ours = openTerminal();
  auto text = askOnTerminal(ours.get() >= 0 ? ours.get() : STDIN_FILENO, "passphrase of key `" + name + "`");
  if (text && text->empty()) return refuse(Problem{"no passphrase was entered", {}});
  return text;
}

Result<SecretText, Problem> findPassphrase(const std::string& name, const fs::path& passphraseFile,
                                           const FileOwners& owners) {
  if (!passphraseFile.empty()) {
    auto text = readPrivate(passphraseFile, owners);
    if (!text) return refuse(text.error());
    return firstLine(std::move(*text));
  }
  if (const auto path = credentialPath("passphrase"); path && ::access(path->c_str(), F_OK) == 0) {
    auto text = readCredential(*path);
    if (!text) return refuse(text.error());
    return firstLine(std::move(*text));
  }
  if (::isatty(STDIN_FILENO) == 1) return askTerminal(name);
  return refuse(
      Problem{"the key is sealed with a passphrase, and there is nobody to ask",
              "set [vault] passphrase_file, give systemd a credential named `passphrase`, or start on a terminal"});
}

Result<SecretText, Problem> findCredential(const std::string& name) {
  const auto path = credentialPath(name);
  if (!path) {
    return refuse(Problem{"the key is sealed with the systemd credential `" + name + "`, but systemd gave none",
                          "add LoadCredentialEncrypted=" + name + " to the unit"});
  }
  auto text = readCredential(*path);
  if (!text) return refuse(Problem{text.error().message, "add LoadCredentialEncrypted=" + name + " to the unit"});
  return text;
}

// A credential that systemd gave needs nobody; else the passphrase, if there is a slot for it.
const Slot* slotToOpen(const KeyHeader& header) {
  const Slot* passphrase = nullptr;
  const Slot* credential = nullptr;
  for (const Slot& slot : header.slots) {
    if (slot.kind == SealKind::Passphrase) passphrase = &slot;
    if (slot.kind != SealKind::SystemdCredential) continue;
    credential = &slot;
    const auto path = credentialPath(slot.credential);
    if (path && ::access(path->c_str(), F_OK) == 0) return &slot;
  }
  return passphrase != nullptr ? passphrase : credential;
}

}  // namespace

Unlocker unlockerFor(const fs::path& passphraseFile, const FileOwners& owners) {
  // Shared among the copies of the std::function: the terminal is asked once, and the text is wiped with the last copy.
  auto remembered = std::make_shared<SecretText>();
  return [passphraseFile, owners, remembered](const KeyHeader& header) -> Result<SlotSecret, Problem> {
    const Slot* slot = slotToOpen(header);
    if (slot == nullptr) {
      return refuse(Problem{"the key is sealed by " + describeSlots(header) + ", which the vault doesn't ask for",
                            "add a passphrase or a credential: `sallyport key slot add " + header.name + "`"});
    }
    if (slot->kind == SealKind::SystemdCredential) {
      auto content = findCredential(slot->credential);
      if (!content) return refuse(content.error());
      return SlotSecret{slot->kind, std::move(*content), slot->credential};
    }
    if (remembered->empty()) {
      auto found = findPassphrase(header.name, passphraseFile, owners);
      if (!found) return refuse(found.error());
      *remembered = std::move(*found);
    }
    return SlotSecret{slot->kind, SecretText::copyOf(remembered->expose()), {}};
  };
}

}  // namespace sallyport::vaultd
