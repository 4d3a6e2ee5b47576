#define EINSTRIDE_LEVEL avx512
#include "level.inc"
