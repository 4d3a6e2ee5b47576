#define EINSTRIDE_LEVEL avx2
#include "level.inc"
