// Expect: conversion from .*PublicKeyTag|could not convert
#include "common/bytes.h"

sallyport::LongNonceBytes nonceFrom(const sallyport::PublicKey& key) { return key; }
