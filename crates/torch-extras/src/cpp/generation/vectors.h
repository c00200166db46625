// Vectors of BYTES bytes, a register each, and the kinds of numbers that are loaded into them.

template <typename N> struct Lanes;
template <> struct Lanes<float> {
  typedef float type __attribute__((vector_size(BYTES)));
  typedef float loose __attribute__((vector_size(BYTES), aligned(4), may_alias));
  typedef int32_t index __attribute__((vector_size(BYTES)));
};
template <> struct Lanes<double> {
  typedef double type __attribute__((vector_size(BYTES)));
  typedef double loose __attribute__((vector_size(BYTES), aligned(8), may_alias));
  typedef int64_t index __attribute__((vector_size(BYTES)));
};
template <typename N> using Vector = typename Lanes<N>::type;
template <typename N> constexpr int64_t LANES = BYTES / sizeof(N);

template <typename N> INLINE Vector<N> load(const N *p) { return *reinterpret_cast<const typename Lanes<N>::loose *>(p); }
template <typename N> INLINE void store(N *p, Vector<N> v) { *reinterpret_cast<typename Lanes<N>::loose *>(p) = v; }

struct Larger {
  template <typename V> INLINE V of(V a, V b) { return a > b ? a : b; }
};
struct Sum {
  template <typename V> INLINE V of(V a, V b) { return a + b; }
};

// All numbers of a vector in one, half by half.
template <typename N, typename Op> INLINE N fold(Vector<N> v) {
  typename Lanes<N>::index order = {};
#pragma GCC unroll 16
  for (int i = 0; i < LANES<N>; i++) order[i] = i;
#pragma GCC unroll 4
  for (int half = LANES<N> / 2; half > 0; half /= 2) v = Op::of(v, __builtin_shuffle(v, order ^ half));
  return v[0];
}

typedef uint16_t Shorts __attribute__((vector_size(BYTES / 2)));
typedef uint16_t LooseShorts __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
typedef uint32_t Words __attribute__((vector_size(BYTES)));

// Sixteen bits each, widened. The compiler puts a register together from halves where it takes one instruction.
INLINE Words words(const void *p) {
  // By its name: `auto` would forget that it lies anywhere.
  const LooseShorts &from = *static_cast<const LooseShorts *>(p);
#if BYTES == 64
  Words wide;
  asm("vpmovzxwd %1, %0" : "=v"(wide) : "m"(from));
  return wide;
#else
  return __builtin_convertvector(from, Words);
#endif
}

INLINE float from_bits(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// How a kind of number S is loaded, stored and multiplied: `steps` of k are one step of the loop, which `read`s them of the left factor.
template <typename S> struct Single {
  using Stored = S;
  static constexpr int64_t steps = 1;
  INLINE S read(const S *a) { return *a; }
  INLINE Vector<S> get(const S *p) { return load(p); }
  INLINE void put(S *p, Vector<S> v) { store(p, v); }
  INLINE Vector<S> spread(S x) { return x - Vector<S>{}; }
  INLINE void add(Vector<S> &sum, Vector<S> x, Vector<S> b) { sum += x * b; }
};
using Floats = Single<float>;
using Doubles = Single<double>;

// bf16 on a CPU without products of it: widened to float.
struct Wide : Floats {
  using Stored = Half;
  INLINE float read(const Half *a) { return from_bits(static_cast<uint32_t>(a->x) << 16); }
  INLINE Vector<float> get(const Half *p) { return (Vector<float>)(words(p) << 16); }
  // Rounded to the nearest, halves to even; what is no number stays none.
  INLINE void put(Half *p, Vector<float> v) {
    const Words bits = (Words)v, rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16, none = Words{} + 0x7fc0;
    *reinterpret_cast<LooseShorts *>(p) = __builtin_convertvector(v == v ? rounded : none, Shorts);
  }
};

#if BYTES == 64
// bf16 two by two: an instruction adds two products to each of sixteen sums.
struct Pairs : Wide {
  static constexpr int64_t steps = 2;
  INLINE float pair(const Half *first, const Half *second) { return from_bits(first->x | static_cast<uint32_t>(second->x) << 16); }
  INLINE float read(const Half *a) {
    float both;
    std::memcpy(&both, a, 4);
    return both;
  }
  // Sixteen pairs of what lies in two rows.
  INLINE Vector<float> pairs(const Half *first, const Half *second) {
    return (Vector<float>)(words(first) | words(second) << 16);
  }
  // The last of an odd number, with zero beside it.
  INLINE float read(const Half *a, bool) { return from_bits(a->x); }
  INLINE Vector<float> last(const Half *row) { return (Vector<float>)words(row); }
  // Two numbers in the place of one are only moved: arithmetic would change what looks like no number.
  INLINE Vector<float> spread(float x) { return Vector<float>{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}; }
  // Both written as the instruction: an intrinsic asks for a function compiled for CPUs that all have it.
  INLINE void add(Vector<float> &sum, Vector<float> x, Vector<float> b) { asm("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(b)); }
  INLINE void put(Half *p, Vector<float> v) {
    Shorts rounded;
    asm("vcvtneps2bf16 %1, %0" : "=v"(rounded) : "v"(v));
    *reinterpret_cast<LooseShorts *>(p) = rounded;
  }
};
#endif
