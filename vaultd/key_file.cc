#include "vaultd/key_file.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

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

Result<KeyHeader, Problem> storeNew(const fs::path& folder, std::string_view name, const LongTermSecret& secret,
                                    const Sealing& sealing) {
  if (auto good = checkName(name); !good) return refuse(good.error());
  if (auto good = checkFolder(folder, true); !good) return refuse(good.error());
  const fs::path path = keyPath(folder, name);
  auto text = sealedText(name, secret, sealing);
  if (!text) return refuse(inFile(path, text.error()));
  Creation creation;
  auto created = createPrivate(path, text->expose(), &creation);
  if (!created) {
    Problem problem = created.error();
    if (creation.exists) {
      problem.hint = "choose another name, or replace the key with `sallyport key rotate " + std::string(name) + "`";
    }
    return refuse(std::move(problem));
  }
  auto parsed = parseKeyText(text->expose());
  CHECK(parsed.has_value());
  return parsed->header;
}

}  // namespace

fs::path keyPath(const fs::path& folder, std::string_view name) { return folder / (std::string(name) + ".key"); }
fs::path noncePath(const fs::path& folder, std::string_view name) { return folder / (std::string(name) + ".nonces"); }

Result<SealedKey, Problem> readKeyFile(const fs::path& folder, std::string_view name, const FileOwners& owners) {
  if (auto good = checkName(name); !good) return refuse(good.error());
  const fs::path path = keyPath(folder, name);
  bool missing = false;
  auto text = readPrivate(path, owners, &missing);
  if (!text && missing) {
    return refuse(Problem{path.string() + ": there is no key `" + std::string(name) + "`",
                          "make it with `sallyport key new " + std::string(name) + "`"});
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
  return sealed;
}

Result<OpenedKey, Problem> loadKey(const fs::path& folder, std::string_view name, const Unlocker& unlock,
                                   const FileOwners& owners) {
  auto sealed = readKeyFile(folder, name, owners);
  if (!sealed) return refuse(sealed.error());
  SecretText secret;
  if (sealed->header.seal != SealKind::Plain) {
    auto given = unlock(sealed->header);
    if (!given) return refuse(inFile(keyPath(folder, name), given.error()));
    secret = std::move(*given);
  }
  auto opened = openSealed(*sealed, secret);
  if (!opened) return refuse(inFile(keyPath(folder, name), opened.error()));
  return opened;
}

Result<KeyHeader, Problem> generateKey(const fs::path& folder, std::string_view name, const Sealing& sealing) {
  return storeNew(folder, name, LongTermSecret::random(), sealing);
}

Result<KeyHeader, Problem> importKey(const fs::path& folder, std::string_view name, const LongTermSecret& secret,
                                     const Sealing& sealing) {
  return storeNew(folder, name, secret, sealing);
}

Result<void, Problem> resealKey(const fs::path& folder, std::string_view name, const Unlocker& unlock,
                                const Sealing& sealing) {
  auto opened = loadKey(folder, name, unlock);
  if (!opened) return refuse(opened.error());
  auto text = sealedText(name, opened->versions[0].secret, sealing, opened->header.created);
  if (!text) return refuse(inFile(keyPath(folder, name), text.error()));
  return replacePrivate(keyPath(folder, name), text->expose());
}

Result<RotatedKey, Problem> rotateKey(const fs::path& folder, std::string_view name, const Sealing& sealing) {
  // A file that we can't read is not ours to rotate: its content may be all that is left of a key.
  auto old = readKeyFile(folder, name);
  if (!old) return refuse(old.error());
  const fs::path path = keyPath(folder, name);
  const LongTermSecret secret = LongTermSecret::random();
  auto text = sealedText(name, secret, sealing);
  if (!text) return refuse(inFile(path, text.error()));
  auto parsed = parseKeyText(text->expose());
  CHECK(parsed.has_value());

  // A second name for the old file first (link never overwrites), then the new file over the first name.
  fs::path archive;
  for (unsigned number = 1;; ++number) {
    archive = path.string() + "." + std::to_string(number);
    if (::link(path.c_str(), archive.c_str()) == 0) break;
    if (errno != EEXIST)
      return refuse(Problem{archive.string() + ": can't keep the old key: " + std::strerror(errno), {}});
  }
  int error = syncFolder(folder);
  if (error != 0) return refuse(Problem{archive.string() + ": can't be made durable: " + std::strerror(error), {}});
  if (auto replaced = replacePrivate(path, text->expose()); !replaced) return refuse(replaced.error());
  return RotatedKey{std::move(parsed->header), std::move(archive)};
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
