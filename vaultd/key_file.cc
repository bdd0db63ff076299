#include "vaultd/key_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "vaultd/key_life.h"

namespace sallyport::vaultd {

namespace fs = std::filesystem;

namespace {

Problem inFile(const fs::path& path, const Problem& problem) {
  return {path.string() + ": " + problem.message, problem.hint};
}

Result<void, Problem> checkName(std::string_view name) {
  if (isKeyName(name)) return {};
  return refuse(Problem{
      "not a name for a key: 1 to 64 letters, digits, `.`, `_` and `-` are wanted, a letter or digit first", {}});
}

Result<KeyHeader, Problem> storeNew(const fs::path& folder, const NewKey& made) {
  const KeyHeader& header = made.opened.header;
  if (auto good = checkFolder(folder, true); !good) return refuse(good.error());
  const fs::path path = keyPath(folder, header.name);
  const SecretText text = keyText(made.opened, made.fileKey);
  Creation creation;
  auto created = createPrivate(path, text.expose(), &creation);
  if (!created) {
    Problem problem = created.error();
    if (creation.exists) {
      problem.hint = "choose another name, or add a version to the key with `sallyport key rotate " + header.name + "`";
    }
    return refuse(std::move(problem));
  }
  return header;
}

// Two programs that change one key at the same time would lose one of the changes.
Result<kj::AutoCloseFd, Problem> lockFolder(const fs::path& folder) {
  const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return refuse(Problem{folder.string() + ": can't open the folder: " + std::strerror(errno), {}});
  kj::AutoCloseFd owned(fd);
  int locked;
  do { locked = ::flock(fd, LOCK_EX); } while (locked != 0 && errno == EINTR);
  if (locked != 0) return refuse(Problem{folder.string() + ": can't lock the folder: " + std::strerror(errno), {}});
  return owned;
}

// Format 1 becomes 2: another file key, in one slot that the same secret opens.
Result<void, Problem> upgrade(EditedKey& key, const SlotSecret& secret) {
  const Slot& old = key.sealed.header.slots[0];
  auto fileKey = renewFileKey(key.opened, {old.kind, &secret.text, old.cost, old.credential, 0, 0, {}});
  if (!fileKey) return refuse(fileKey.error());
  key.fileKey = std::move(*fileKey);
  auto parsed = parseKeyText(keyText(key.opened, key.fileKey).expose());
  CHECK(parsed.has_value());
  key.sealed = std::move(*parsed);
  return {};
}

struct Unlocked {
  FileKey fileKey;
  SlotSecret secret;
};

Result<Unlocked, Problem> unlockFile(const SealedKey& sealed, const Unlocker& unlock) {
  Unlocked result;
  if (sealed.header.seal != SealKind::Plain) {
    auto given = unlock(sealed.header);
    if (!given) return refuse(given.error());
    result.secret = std::move(*given);
  }
  auto fileKey = fileKeyOf(sealed, result.secret);
  if (!fileKey) return refuse(fileKey.error());
  result.fileKey = std::move(*fileKey);
  return result;
}

Result<EditedKey, Problem> openForChange(SealedKey sealed, const Unlocker& unlock) {
  auto unlocked = unlockFile(sealed, unlock);
  if (!unlocked) return refuse(unlocked.error());
  auto opened = openKey(sealed, unlocked->fileKey);
  if (!opened) return refuse(opened.error());
  EditedKey key{std::move(sealed), std::move(*opened), std::move(unlocked->fileKey)};
  if (key.sealed.format == 1) {
    if (auto done = upgrade(key, unlocked->secret); !done) return refuse(done.error());
  }
  return key;
}

fs::path importPath(const fs::path& folder) { return folder / "import-key"; }

}  // namespace

fs::path keyPath(const fs::path& folder, std::string_view name) { return folder / (std::string(name) + ".key"); }
fs::path noncePath(const fs::path& folder, std::string_view name) { return folder / (std::string(name) + ".nonces"); }

int64_t unixNow() { return static_cast<int64_t>(std::time(nullptr)); }

Result<KeyFile, Problem> readKeyText(const fs::path& folder, std::string_view name, const FileOwners& owners) {
  if (auto good = checkName(name); !good) return refuse(good.error());
  const fs::path path = keyPath(folder, name);
  bool missing = false;
  auto text = readPrivate(path, owners, &missing);
  if (!text && missing) {
    return refuse(Problem{path.string() + ": there is no key `" + std::string(name) + "`",
                          "make it with `sallyport key new " + std::string(name) +
                              "`, or for the peer protocol with `sallyport pair " + std::string(name) + "`"});
  }
  if (!text) return refuse(text.error());
  // Somebody who can write here could replace the key.
  if (auto good = checkFolder(folder); !good) return refuse(good.error());
  auto sealed = parseKeyText(text->expose());
  if (!sealed) return refuse(inFile(path, sealed.error()));
  if (sealed->header.name != name) {
    return refuse(Problem{
        path.string() + ": the file holds the key `" + sealed->header.name + "`, not `" + std::string(name) + "`",
        "rename it to " + sealed->header.name + ".key, or put the right file there"});
  }
  return KeyFile{std::move(*text), std::move(*sealed)};
}

Result<SealedKey, Problem> readKeyFile(const fs::path& folder, std::string_view name, const FileOwners& owners) {
  auto file = readKeyText(folder, name, owners);
  if (!file) return refuse(file.error());
  return std::move(file->sealed);
}

Result<OpenedKey, Problem> loadKey(const fs::path& folder, std::string_view name, const Unlocker& unlock,
                                   const FileOwners& owners) {
  auto sealed = readKeyFile(folder, name, owners);
  if (!sealed) return refuse(sealed.error());
  auto unlocked = unlockFile(*sealed, unlock);
  if (!unlocked) return refuse(inFile(keyPath(folder, name), unlocked.error()));
  auto opened = openKey(*sealed, unlocked->fileKey);
  if (!opened) return refuse(inFile(keyPath(folder, name), opened.error()));
  return opened;
}

Result<KeyHeader, Problem> generateKey(const fs::path& folder, std::string_view name, const Sealing& sealing,
                                       const KeyOptions& options) {
  KeyOptions fresh = options;
  fresh.unused = options.kind == KeyKind::PeerBlock;
  return importKey(folder, name, LongTermSecret::random(options.kind), sealing, fresh);
}

Result<KeyHeader, Problem> importKey(const fs::path& folder, std::string_view name, const LongTermSecret& secret,
                                     const Sealing& sealing, const KeyOptions& options) {
  if (auto good = checkName(name); !good) return refuse(good.error());
  auto made = newKey(name, options.kind, secret, sealing, unixNow(), options.party);
  if (!made) return refuse(inFile(keyPath(folder, name), made.error()));
  for (KeyVersion* version : {&made->opened.header.versions[0], &made->opened.versions[0].version}) {
    version->unused = options.unused;
    if (options.awaits) version->activeFrom = AWAITS_CONFIRMATION;
  }
  made->opened.header.exportable = options.exportable;
  made->opened.header.backupAllowed = options.backupAllowed;
  return storeNew(folder, *made);
}

Result<KeyHeader, Problem> storeTokenKey(const fs::path& folder, std::string_view name, KeyKind kind,
                                         std::string_view token, const TokenKey& key, const Sealing& sealing,
                                         const KeyOptions& options) {
  if (auto good = checkName(name); !good) return refuse(good.error());
  auto made = newTokenKey(name, kind, token, key, sealing, unixNow());
  if (!made) return refuse(inFile(keyPath(folder, name), made.error()));
  made->opened.header.backupAllowed = options.backupAllowed;
  return storeNew(folder, *made);
}

Result<KeyHeader, Problem> restoreKey(const fs::path& folder, const SealedKey& backup, const SlotSecret& secret,
                                      const Sealing& sealing) {
  auto restored = fromBackup(backup, secret, sealing);
  if (!restored) return refuse(restored.error());
  return storeNew(folder, *restored);
}

Result<ChangedKey, Problem> changeKey(const fs::path& folder, std::string_view name, const Unlocker& unlock,
                                      const Change& change, int64_t nowUnix) {
  const fs::path path = keyPath(folder, name);
  auto file = readKeyText(folder, name);
  if (!file) return refuse(file.error());
  const bool oldFormat = file->sealed.format == 1;
  auto key = openForChange(std::move(file->sealed), unlock);
  if (!key) return refuse(inFile(path, key.error()));
  auto rewrite = change(*key);
  if (!rewrite) return refuse(inFile(path, rewrite.error()));

  const bool dropped = dropDestroyed(key->opened, nowUnix) > 0;
  if (*rewrite == Rewrite::Slots && (dropped || oldFormat)) *rewrite = Rewrite::All;
  if (*rewrite == Rewrite::Nothing && dropped) *rewrite = Rewrite::All;
  ChangedKey changed;
  changed.header = key->opened.header;
  changed.header.seal = changed.header.slots[0].kind;
  changed.fileKey = std::move(key->fileKey);
  if (*rewrite == Rewrite::Nothing) return changed;
  changed.text = *rewrite == Rewrite::Slots ? withSlots(key->sealed, changed.header.slots, changed.fileKey)
                                            : keyText(key->opened, changed.fileKey);
  // People may have been asked meanwhile: the lock is only for the writing, and nobody else's change is lost.
  const auto locked = lockFolder(folder);
  if (!locked) return refuse(locked.error());
  const auto now = readKeyText(folder, name);
  if (!now) return refuse(now.error());
  if (!equalsConstantTime(asBytes(now->text.expose()), asBytes(file->text.expose())))
    return refuse(Problem{path.string() + ": somebody else has just changed this key", "try again"});
  if (auto replaced = replacePrivate(path, changed.text.expose()); !replaced) return refuse(replaced.error());
  changed.written = true;
  return changed;
}

Result<PublicKey, Problem> prepareImport(const fs::path& folder) {
  if (auto good = checkFolder(folder, true); !good) return refuse(good.error());
  const fs::path path = importPath(folder);
  bool missing = false;
  auto text = readPrivate(path, {}, &missing);
  if (!text && missing) {
    const ImportKey made = newImportKey();
    if (auto created = createPrivate(path, importKeyText(made).expose()); !created) return refuse(created.error());
    return made.publicKey;
  }
  if (!text) return refuse(text.error());
  auto key = parseImportKey(text->expose());
  if (!key) return refuse(inFile(path, key.error()));
  return key->publicKey;
}

Result<KeyHeader, Problem> importWrapped(const fs::path& folder, std::string_view name, std::string_view wrapped,
                                         const Sealing& sealing, const KeyOptions& options) {
  const fs::path path = importPath(folder);
  bool missing = false;
  auto text = readPrivate(path, {}, &missing);
  if (!text && missing) {
    return refuse(Problem{path.string() + ": there is no import key",
                          "make one with `sallyport key import-key`, and wrap the key to it"});
  }
  if (!text) return refuse(text.error());
  const auto key = parseImportKey(text->expose());
  if (!key) return refuse(inFile(path, key.error()));
  const auto content = unwrapSecret(wrapped, *key);
  if (!content) return refuse(content.error());
  KeyOptions all = options;
  all.kind = content->kind;
  if ((all.kind == KeyKind::PeerBlock) != all.party.has_value()) {
    return refuse(all.party
                      ? Problem{"the wrapped key is no peer-block: it has no party", "leave --party out"}
                      : Problem{"the wrapped key is a peer-block", "say which party this host is: --party A or B"});
  }
  auto made = importKey(folder, name, content->secret, sealing, all);
  if (!made) return made;
  // Zeros first: what a file system keeps of the old block is not ours to say.
  const std::string zeros(text->size(), '\0');
  if (auto wiped = openPrivate(path, O_RDWR, {}); wiped) {
    (void)!::pwrite(wiped->get(), zeros.data(), zeros.size(), 0);
    ::fsync(wiped->get());
  }
  if (::unlink(path.c_str()) != 0 || syncFolder(folder) != 0) {
    return refuse(
        Problem{path.string() + ": the key was imported, but its import key can't be removed: " + std::strerror(errno),
                "remove the file"});
  }
  return made;
}

Result<std::vector<ListedKey>, Problem> listKeys(const fs::path& folder) {
  if (auto good = checkFolder(folder); !good) return refuse(good.error());
  std::vector<ListedKey> keys;
  std::error_code failure;
  for (fs::directory_iterator entry(folder, failure), end; !failure && entry != end; entry.increment(failure)) {
    if (entry->path().extension() != ".key") continue;
    ListedKey listed;
    listed.name = entry->path().stem().string();
    if (listed.name.empty() || listed.name.front() == '.') continue;
    auto sealed = readKeyFile(folder, listed.name);
    if (sealed)
      listed.header = std::move(sealed->header);
    else
      listed.problem = sealed.error();
    keys.push_back(std::move(listed));
  }
  if (failure) return refuse(Problem{folder.string() + ": can't list: " + failure.message(), {}});
  std::sort(keys.begin(), keys.end(),
            [](const ListedKey& left, const ListedKey& right) { return left.name < right.name; });
  return keys;
}

}  // namespace sallyport::vaultd
