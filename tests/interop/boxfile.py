"""Boxed files and signature files once more, written from docs/protocol.md §11 with PyNaCl and hashlib: the other side of the tests
of `sallyport box|open|sign|verify`. Whole files in memory, and no manners.
"""

import base64
import hashlib
import os
import struct

import nacl.bindings as sodium
import nacl.public
import nacl.signing

MAGIC = b"sallyport box 1\n"
BLOCK = 65536
SIGNATURE_MAGIC = b"sallyport signature 1\n"


class Bad(Exception):
    """Not a file that may be believed."""


def keyed(key, person, data):
    return hashlib.blake2b(data, digest_size=32, key=key, person=person).digest()


def block_tag(tag_key, stream, number, last, sealed):
    data = stream + struct.pack(">QB", number, last) + hashlib.blake2b(sealed, digest_size=32).digest()
    return hashlib.blake2b(data, digest_size=16, key=tag_key).digest()


def write(sender, version, recipients, text, blocks=None):
    """`sender`: nacl.public.PrivateKey; `recipients`: public keys. `blocks`: other blocks than an honest sender makes."""
    recipients = [bytes(key) for key in recipients]
    listed = MAGIC + struct.pack(">I", version) + bytes(sender.public_key) + bytes([len(recipients)]) + b"".join(recipients)
    content, tag_keys = os.urandom(32), [os.urandom(32) for _ in recipients]
    head = listed
    for key, tag_key in zip(recipients, tag_keys, strict=True):
        nonce = os.urandom(16)
        boxed = MAGIC + hashlib.blake2b(listed, digest_size=32).digest() + content + tag_key
        head += nonce + nacl.public.Box(sender, nacl.public.PublicKey(key)).encrypt(boxed, b"SallyBox" + nonce).ciphertext
    mac = keyed(content, b"sallyport-box-hd", head)
    state = sodium.crypto_secretstream_xchacha20poly1305_state()
    stream = sodium.crypto_secretstream_xchacha20poly1305_init_push(state, keyed(content, b"sallyport-box-st", mac))
    out = head + mac + stream
    if blocks is None:
        blocks = [text[at:at + BLOCK] for at in range(0, max(len(text), 1), BLOCK)]
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        mark = sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL if last else sodium.crypto_secretstream_xchacha20poly1305_TAG_MESSAGE
        sealed = sodium.crypto_secretstream_xchacha20poly1305_push(state, block, tag=mark)
        out += sealed
        if len(recipients) > 1:
            out += b"".join(block_tag(tag_key, stream, number, last, sealed) for tag_key in tag_keys)
    return out


def read(recipient, data):
    """(sender's public key, its version, text). `recipient`: nacl.public.PrivateKey."""
    if data[:16] != MAGIC:
        raise Bad("magic")
    version, sender, count = struct.unpack(">I", data[16:20])[0], data[20:52], data[52]
    at = 53 + 32 * count
    keys = [data[53 + 32 * i:85 + 32 * i] for i in range(count)]
    index = keys.index(bytes(recipient.public_key))
    listed, boxes = data[:at], data[at:at + 144 * count]
    own = boxes[144 * index:144 * (index + 1)]
    text = nacl.public.Box(recipient, nacl.public.PublicKey(sender)).decrypt(own[16:], b"SallyBox" + own[:16])
    if text[:16] != MAGIC or text[16:48] != hashlib.blake2b(listed, digest_size=32).digest():
        raise Bad("list")
    content, tag_key = text[48:80], text[80:112]
    head, at = data[:at + 144 * count], at + 144 * count
    mac, stream, rest = data[at:at + 32], data[at + 32:at + 56], data[at + 56:]
    if mac != keyed(content, b"sallyport-box-hd", head):
        raise Bad("mac")
    state = sodium.crypto_secretstream_xchacha20poly1305_state()
    sodium.crypto_secretstream_xchacha20poly1305_init_pull(state, stream, keyed(content, b"sallyport-box-st", mac))
    overhead = 17 + (16 * count if count > 1 else 0)
    out, number, ended = b"", 0, False
    while not ended:
        block, rest = rest[:BLOCK + overhead], rest[BLOCK + overhead:]
        sealed, tags = (block[:-16 * count], block[-16 * count:]) if count > 1 else (block, b"")
        last = not rest
        if count > 1 and tags[16 * index:16 * index + 16] != block_tag(tag_key, stream, number, last, sealed):
            raise Bad("tag")
        opened, mark = sodium.crypto_secretstream_xchacha20poly1305_pull(state, sealed)
        ended = mark == sodium.crypto_secretstream_xchacha20poly1305_TAG_FINAL
        if ended != last:
            raise Bad("end")
        out, number = out + opened, number + 1
    return sender, version, out


def sign(key, data):
    """`key`: nacl.signing.SigningKey."""
    signature = key.sign(SIGNATURE_MAGIC + hashlib.sha512(data).digest()).signature
    return SIGNATURE_MAGIC + b"key: " + base64.b64encode(bytes(key.verify_key)) + b"\nsignature: " + base64.b64encode(signature) + b"\n"


def verify(public, text, data):
    """Raises nacl.exceptions.BadSignatureError if it isn't genuine."""
    lines = text.split(b"\n")
    if lines[0] + b"\n" != SIGNATURE_MAGIC or lines[1] != b"key: " + base64.b64encode(public) or lines[3:] != [b""]:
        raise Bad("signature file")
    signature = base64.b64decode(lines[2].removeprefix(b"signature: "), validate=True)
    nacl.signing.VerifyKey(public).verify(SIGNATURE_MAGIC + hashlib.sha512(data).digest(), signature)
