// Kernels over a vector type. This text stands once in the target region of every instruction set, because the target of
// a template is fixed where it is defined. A vector type V has lanes, tile_rows, load and store (whole and of the first
// `count` lanes), arithmetic operators, fma, min and max (both give a NaN if the second operand is one), round,
// and scale_by_power; for reduced precision also difference_of_products, store_narrow, store_narrow_pairs
// and store_bytes; for rows of bfloat16 between layers load of bfloat16 and store_pairs, and, if it has them, reciprocal, good
// to 2^-12, and fraction, x above the whole number below it, which scale_by_power then rounds down to.

/// The register tile of a dot product: Dot says how one broadcast group of the left operand meets one vector of groups of
/// the right one.
template <class Dot>
struct TileKernels {
    using A = typename Dot::A;
    using B = typename Dot::B;
    using Sum = typename Dot::Sum;
    using Total = typename Dot::Total;
    static constexpr std::size_t vectors = 2;
    static constexpr std::size_t columns = vectors * Dot::lanes;

    static void multiply(std::size_t rows, std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                         const B* b, Total* out, const void* ahead, bool onto) {
        table(std::make_index_sequence<Dot::tile_rows>{})[rows - 1](groups, a, a_row, a_group, b, out,
                                                                    static_cast<const char*>(ahead), onto);
    }

    static constexpr TileKernel<A, B, Total> kernel{Dot::tile_rows, columns, Dot::group, multiply};

private:
    using Function = void (*)(std::size_t, const A*, std::size_t, std::size_t, const B*, Total*, const char*, bool);

    template <std::size_t... Rows>
    static const Function* table(std::index_sequence<Rows...>) {
        static constexpr Function functions[]{tile<Rows + 1>...};
        return functions;
    }

    template <std::size_t rows>
    static void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group, const B* b, Total* out,
                     const char* ahead, bool onto) {
        tile(groups, a, a_row, a_group, b, out, ahead, onto, std::make_index_sequence<rows>{});
    }

    // Index sequences instead of loops keep every sum in a register at -O2. A pointer to every third row lets x86's scaled
    // addressing reach all rows of a with few registers.
    template <std::size_t... Row>
    [[gnu::always_inline]] static inline void tile(std::size_t groups, const A* a, std::size_t a_row, std::size_t a_group,
                                                   const B* b, Total* out, const char* ahead, [[maybe_unused]] bool onto,
                                                   std::index_sequence<Row...>) {
        constexpr std::size_t rows = sizeof...(Row);
        Sum left[rows], right[rows];
        ((left[Row] = Dot::zero(), right[Row] = Dot::zero()), ...);
        if constexpr (std::is_floating_point_v<Total>) {
            if (onto) ((left[Row] = Dot::sums(out + Row * columns), right[Row] = Dot::sums(out + Row * columns + Dot::lanes)), ...);
        }
        const A* thirds[(rows + 2) / 3];
        ((thirds[Row / 3] = a + Row / 3 * 3 * a_row), ...);
        constexpr std::size_t width = columns * Dot::group;
        std::size_t g = 0;
        // Tall tiles of rows in place take two groups at a time: what counts and moves pointers takes turns from the multipliers.
        if constexpr (unrolls_by_hand && 2 * rows > Dot::tile_rows) {
            for (; a_group == Dot::group && g + 2 <= groups; g += 2, b += 2 * width, ahead += 2 * fetched_per_group) {
                __builtin_prefetch(ahead, 0, 2);
                const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
                (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
                const auto b2 = Dot::load(b + width), b3 = Dot::load(b + width + Dot::lanes * Dot::group);
                (multiply_add(thirds[Row / 3] + Row % 3 * a_row + Dot::group, b2, b3, left[Row], right[Row]), ...);
                ((Row % 3 == 0 ? void(thirds[Row / 3] += 2 * Dot::group) : void()), ...);
            }
        }
        for (; g < groups; ++g, b += width, ahead += fetched_per_group) {
            __builtin_prefetch(ahead, 0, 2);
            const auto b0 = Dot::load(b), b1 = Dot::load(b + Dot::lanes * Dot::group);
            (multiply_add(thirds[Row / 3] + Row % 3 * a_row, b0, b1, left[Row], right[Row]), ...);
            ((Row % 3 == 0 ? void(thirds[Row / 3] += a_group) : void()), ...);
        }
        ((Dot::store(out + Row * columns, left[Row]), Dot::store(out + Row * columns + Dot::lanes, right[Row])), ...);
    }

    template <class Group>
    [[gnu::always_inline]] static inline void multiply_add(const A* a, const Group& b0, const Group& b1, Sum& left,
                                                           Sum& right) {
        const auto repeated = Dot::broadcast(a);
        left = Dot::dot(repeated, b0, left);
        right = Dot::dot(repeated, b1, right);
    }
};

/// Multiply-add of single elements.
template <class V>
struct ElementDot {
    using A = typename V::element;
    using B = A;
    using Sum = V;
    using Total = A;
    static constexpr std::size_t lanes = V::lanes, tile_rows = V::tile_rows, group = 1;

    [[gnu::always_inline]] static inline V zero() { return V(0); }
    [[gnu::always_inline]] static inline V sums(const Total* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V load(const B* from) { return V::load(from); }
    [[gnu::always_inline]] static inline V broadcast(const A* from) { return V(*from); }
    [[gnu::always_inline]] static inline V dot(const V& a, const V& b, const V& sum) { return fma(a, b, sum); }
    [[gnu::always_inline]] static inline void store(Total* to, const V& sum) { sum.store(to); }
};

template <class V>
struct VectorKernels {
    using T = typename V::element;
    static constexpr std::size_t lanes = V::lanes;

    // Σ and max over lanes in a fixed order, so that every caller gets the same bits.
    static T sum(const V& a) {
        alignas(64) T lane[lanes];
        a.store(lane);
        for (std::size_t half = lanes / 2; half > 0; half /= 2) {
            for (std::size_t i = 0; i < half; ++i) lane[i] += lane[i + half];
        }
        return lane[0];
    }
    static T largest(const V& a) {
        alignas(64) T lane[lanes];
        a.store(lane);
        T most = lane[0];
        for (std::size_t i = 1; i < lanes; ++i) most = lane[i] > most ? lane[i] : most;
        return most;
    }

    /// A tile of sums in float or double.
    struct Sums {
        const T* data;
        std::size_t stride;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t count) const {
            return load(data + i * stride + j, count);
        }
    };

    static void finish_tile(const T* product, std::size_t product_stride, std::size_t rows, std::size_t columns, T* c,
                            std::size_t c_stride, bool accumulate, const Finish<T>& finish) {
        finish_product(Sums{product, product_stride}, rows, columns, c, c_stride, accumulate, finish);
    }

    /// Into rows of T, or of bfloat16 with activations as accurate as that; those are not accumulated.
    template <class Product, class Out>
    [[gnu::always_inline]] static inline void finish_product(const Product& product, std::size_t rows, std::size_t columns,
                                                             Out* c, std::size_t c_stride, bool accumulate,
                                                             const Finish<T>& finish) {
        const bool is_plain = !accumulate && finish.scale == nullptr && finish.before == nullptr && finish.factor == nullptr;
        if (is_plain && columns % (2 * lanes) == 0) {
            finish_plain(product, rows, columns, c, c_stride, finish);
            return;
        }
        for (std::size_t i = 0; i < rows; ++i) {
            Out* const to = c + i * c_stride;
            for (std::size_t j = 0; j < columns; j += lanes) {
                const std::size_t count = columns - j < lanes ? columns - j : lanes;
                V value = product(i, j, count);
                if constexpr (std::is_same_v<Out, T>) {
                    if (accumulate) value = value + load(to + j, count);
                }
                if (finish.scale != nullptr) value = value * load(finish.scale + j, count);
                if (finish.bias != nullptr) value = value + load(finish.bias + j, count);
                if (finish.before != nullptr) store(finish.before + i * finish.before_stride + j, value, count);
                value = activated<!std::is_same_v<Out, T>>(finish.activation, value);
                if (finish.factor != nullptr) value = value * load(finish.factor + i * finish.factor_stride + j, count);
                if (finish.residual != nullptr) value = value + load(finish.residual + i * finish.residual_stride + j, count);
                store_as(to + j, value, count);
            }
        }
    }

    /// What most products get, bias, activation and residual, with nothing to ask in the loop.
    template <class Product, class Out>
    [[gnu::always_inline]] static inline void finish_plain(const Product& product, std::size_t rows, std::size_t columns,
                                                           Out* c, std::size_t c_stride, const Finish<T>& finish) {
        const auto run = [&]<Activation activation, bool has_residual>() __attribute__((always_inline)) {
            for (std::size_t j = 0; j < columns; j += 2 * lanes) {
                const bool has_bias = finish.bias != nullptr;
                const V first_bias = has_bias ? V::load(finish.bias + j) : V(0);
                const V second_bias = has_bias ? V::load(finish.bias + j + lanes) : V(0);
                for (std::size_t i = 0; i < rows; ++i) {
                    V first = product(i, j, lanes) + first_bias, second = product(i, j + lanes, lanes) + second_bias;
                    first = activated<!std::is_same_v<Out, T>>(activation, first);
                    second = activated<!std::is_same_v<Out, T>>(activation, second);
                    if constexpr (has_residual) {
                        const T* const residual = finish.residual + i * finish.residual_stride + j;
                        first = first + V::load(residual);
                        second = second + V::load(residual + lanes);
                    }
                    store_two(c + i * c_stride + j, first, second);
                }
            }
        };
        const auto with = [&]<Activation activation>() __attribute__((always_inline)) {
            finish.residual != nullptr ? run.template operator()<activation, true>() : run.template operator()<activation, false>();
        };
        switch (finish.activation) {
            case Activation::gelu: return with.template operator()<Activation::gelu>();
            case Activation::quick_gelu: return with.template operator()<Activation::quick_gelu>();
            case Activation::tanh_gelu: return with.template operator()<Activation::tanh_gelu>();
            case Activation::silu: return with.template operator()<Activation::silu>();
            case Activation::relu: return with.template operator()<Activation::relu>();
            case Activation::squared_relu: return with.template operator()<Activation::squared_relu>();
            case Activation::none: return with.template operator()<Activation::none>();
        }
    }

    static void transpose(const T* from, std::size_t from_stride, std::size_t rows, std::size_t columns, T* to,
                          std::size_t to_stride) {
        transpose_bytes(reinterpret_cast<const char*>(from), from_stride, rows, columns, reinterpret_cast<char*>(to), to_stride);
    }

    /// Of any elements that are as large as a T; strides count them.
    static void transpose_bytes(const char* from, std::size_t from_stride, std::size_t rows, std::size_t columns, char* to,
                                std::size_t to_stride) {
        constexpr std::size_t size = sizeof(T);
        std::size_t i = 0;
#if !defined(__CUDACC__)  // nvcc's front end does not know __builtin_shufflevector
        for (; i + lanes <= rows; i += lanes) {
            std::size_t j = 0;
            for (; j + lanes <= columns; j += lanes) {
                transpose_block(from + (i * from_stride + j) * size, from_stride * size, to + (j * to_stride + i) * size,
                                to_stride * size, std::make_index_sequence<lanes>{});
            }
            for (; j < columns; ++j) {
                for (std::size_t l = i; l < i + lanes; ++l)
                    std::memcpy(to + (j * to_stride + l) * size, from + (l * from_stride + j) * size, size);
            }
        }
#endif
        for (; i < rows; ++i) {
            for (std::size_t j = 0; j < columns; ++j)
                std::memcpy(to + (j * to_stride + i) * size, from + (i * from_stride + j) * size, size);
        }
    }

    static void activate(Activation activation, const T* x, T* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(y + j, activated(activation, load(x + j, count)), count);
        }
    }

    static void activate_backward(Activation activation, const T* x, T* g, std::size_t size) {
        for (std::size_t j = 0; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            store(g + j, load(g + j, count) * derivative(activation, load(x + j, count)), count);
        }
    }

    static void layer_norm(const T* x, const T* gain, const T* bias, T* y, T* mean, T* inverse, std::size_t rows,
                           std::size_t width, T eps) {
        for (std::size_t i = 0; i < rows; ++i, x += width, y += width) {
            const RowMoments moments = moments_of(x, width, eps, mean != nullptr);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                store(y + j, normed(moments, x + j, gain + j, bias == nullptr ? bias : bias + j, count), count);
            }
            if (mean != nullptr) mean[i] = moments.mean;
            inverse[i] = moments.inverse;
        }
    }

    static void layer_norm_narrow(const T* x, const T* gain, const T* bias, bfloat16* y, std::size_t y_stride,
                                  std::size_t rows, std::size_t width, T eps, bool has_mean) {
        for (std::size_t i = 0; i < rows; ++i, x += width, y += y_stride) {
            const RowMoments moments = moments_of(x, width, eps, has_mean);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                normed(moments, x + j, gain + j, bias == nullptr ? bias : bias + j, count).store_narrow(y + j, count);
            }
        }
    }

    static void layer_norm_backward(const T* dy, const T* x, const T* gain, const T* mean, const T* inverse, T* dx,
                                    std::size_t rows, std::size_t width, bool accumulate) {
        for (std::size_t i = 0; i < rows; ++i, x += width, dy += width, dx += width) {
            const V mu(mean == nullptr ? T{0} : mean[i]), scale(inverse[i]);
            V sums(0), products(0);
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V g = load(dy + j, count) * load(gain + j, count);  // zero behind the row's end
                sums = sums + g;
                products = fma(g, (load(x + j, count) - mu) * scale, products);
            }
            const V total(mean == nullptr ? T{0} : sum(sums) / static_cast<T>(width)), product(sum(products) / static_cast<T>(width));
            for (std::size_t j = 0; j < width; j += lanes) {
                const std::size_t count = width - j < lanes ? width - j : lanes;
                const V normed = (load(x + j, count) - mu) * scale;
                const V value = scale * (load(dy + j, count) * load(gain + j, count) - total - normed * product);
                store(dx + j, accumulate ? load(dx + j, count) + value : value, count);
            }
        }
    }

    static void layer_norm_parameters_backward(const T* dy, const T* x, const T* mean, const T* inverse, T* dgain,
                                               T* dbias, std::size_t rows, std::size_t width, std::size_t first,
                                               std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V gain_sum = load(dgain + j, count), bias_sum = dbias == nullptr ? V(0) : load(dbias + j, count);
            for (std::size_t i = 0; i < rows; ++i) {
                const V g = load(dy + i * width + j, count), mu(mean == nullptr ? T{0} : mean[i]);
                gain_sum = fma(g, (load(x + i * width + j, count) - mu) * V(inverse[i]), gain_sum);
                bias_sum = bias_sum + g;
            }
            store(dgain + j, gain_sum, count);
            if (dbias != nullptr) store(dbias + j, bias_sum, count);
        }
    }

    static void column_sums(const T* x, T* sums, std::size_t rows, std::size_t width, std::size_t first,
                            std::size_t last) {
        for (std::size_t j = first; j < last; j += lanes) {
            const std::size_t count = last - j < lanes ? last - j : lanes;
            V total = load(sums + j, count);
            for (std::size_t i = 0; i < rows; ++i) total = total + load(x + i * width + j, count);
            store(sums + j, total, count);
        }
    }

    static void softmax(T* x, std::size_t count, T scale) {
        const std::size_t whole = count / lanes * lanes;
        T peak = scale * x[0];
        if (whole > 0) {
            V peaks = V(scale) * V::load(x);
            for (std::size_t j = lanes; j < whole; j += lanes) peaks = max(peaks, V(scale) * V::load(x + j));
            peak = largest(peaks);
        }
        for (std::size_t j = whole; j < count; ++j) peak = scale * x[j] > peak ? scale * x[j] : peak;
        V sums(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V value = exp(fma(V(scale), V::load(x + j), V(-peak)));
            value.store(x + j);
            sums = sums + value;
        }
        T total = sum(sums);
        if (const std::size_t rest = count - whole; rest > 0) {
            store(x + whole, exp(fma(V(scale), load(x + whole, rest), V(-peak))), rest);
            for (std::size_t j = whole; j < count; ++j) total += x[j];
        }
        const V normaliser(T{1} / total);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(x + j, load(x + j, here) * normaliser, here);
        }
    }

    static void softmax_narrow(T* x, std::size_t panel, std::size_t panel_step, std::size_t count, T scale, bfloat16* y) {
        const auto for_each_vector = [&](const auto& body) {
            for (std::size_t first = 0; first < count; first += panel, x += panel_step) {
                const std::size_t last = count - first < panel ? count - first : panel;
                for (std::size_t j = 0; j < last; j += lanes) body(x + j, first + j, last - j < lanes ? last - j : lanes);
            }
            x -= (count + panel - 1) / panel * panel_step;
        };
        V peaks(x[0]);  // a lane that holds no element holds this one
        for_each_vector([&](const T* from, std::size_t, std::size_t here) {
            if (here == lanes) {
                peaks = max(peaks, V::load(from));
            } else {
                for (std::size_t j = 0; j < here; ++j) peaks = max(peaks, V(from[j]));
            }
        });
        constexpr T per_e = static_cast<T>(1.44269504088896340736);  // 1 / ln(2)
        const V steep(per_e * scale), peak(-per_e * scale * largest(peaks));
        V sums(0);
        T total{0};
        for_each_vector([&](T* from, std::size_t, std::size_t here) {
            const V value = power_narrow(fma(steep, load(from, here), peak));
            store(from, value, here);
            if (here == lanes) {
                sums = sums + value;
            } else {
                for (std::size_t j = 0; j < here; ++j) total += from[j];
            }
        });
        const V normaliser(T{1} / (sum(sums) + total));
        for_each_vector([&](const T* from, std::size_t at, std::size_t here) {
            const V value = load(from, here) * normaliser;
            value.store_narrow(y + at, here);
        });
    }

    static void sum_of_products(std::size_t terms, const T* const* x, const T* const* factors, const T* bias,
                                Activation activation, T* y, std::size_t width) {
        std::size_t j = 0;
        // Two vectors at a time: one sum would wait for itself.
        for (; j + 2 * lanes <= width; j += 2 * lanes) {
            V left = bias == nullptr ? V(0) : V::load(bias + j), right = bias == nullptr ? V(0) : V::load(bias + j + lanes);
            for (std::size_t i = 0; i < terms; ++i) {
                left = fma(V::load(x[i] + j), V::load(factors[i] + j), left);
                right = fma(V::load(x[i] + j + lanes), V::load(factors[i] + j + lanes), right);
            }
            activated(activation, left).store(y + j);
            activated(activation, right).store(y + j + lanes);
        }
        for (; j < width; j += lanes) {
            const std::size_t count = width - j < lanes ? width - j : lanes;
            V total = bias == nullptr ? V(0) : load(bias + j, count);
            for (std::size_t i = 0; i < terms; ++i) total = fma(load(x[i] + j, count), load(factors[i] + j, count), total);
            store(y + j, activated(activation, total), count);
        }
    }

    static T dot(const T* x, const T* y, std::size_t size) {
        // Four sums: one would wait for itself.
        V sums[4] = {V(0), V(0), V(0), V(0)};
        std::size_t j = 0;
        for (; j + 4 * lanes <= size; j += 4 * lanes) {
            for (std::size_t i = 0; i < 4; ++i) sums[i] = fma(V::load(x + j + i * lanes), V::load(y + j + i * lanes), sums[i]);
        }
        for (; j < size; j += lanes) {
            const std::size_t count = size - j < lanes ? size - j : lanes;
            sums[0] = fma(load(x + j, count), load(y + j, count), sums[0]);
        }
        return sum((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }

    static void softmax_backward(const T* y, T* dx, std::size_t count, T scale) {
        V products(0);
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            products = fma(load(dx + j, here), load(y + j, here), products);
        }
        const V dot(sum(products));
        for (std::size_t j = 0; j < count; j += lanes) {
            const std::size_t here = count - j < lanes ? count - j : lanes;
            store(dx + j, V(scale) * load(y + j, here) * (load(dx + j, here) - dot), here);
        }
    }

    static constexpr KernelSet<T> set(const char* name) {
        return {.name = name,
                .tile = TileKernels<ElementDot<V>>::kernel,
                .finish_tile = finish_tile,
                .transpose = transpose,
                .activate = activate,
                .layer_norm = layer_norm,
                .softmax = softmax,
                .sum_of_products = sum_of_products,
                .dot = dot};
    }

    static constexpr GradientKernels<T> gradients{.activate_backward = activate_backward,
                                                  .layer_norm_backward = layer_norm_backward,
                                                  .layer_norm_parameters_backward = layer_norm_parameters_backward,
                                                  .column_sums = column_sums,
                                                  .softmax_backward = softmax_backward};

private:
#if !defined(__CUDACC__)
    /// Interleaving row k with row k + lanes / 2, for every k, log2(lanes) times over, transposes a square.
    template <std::size_t... Lane>
    [[gnu::always_inline]] static inline void transpose_block(const char* from, std::size_t from_stride, char* to,
                                                              std::size_t to_stride, std::index_sequence<Lane...>) {
        constexpr std::size_t half = lanes / 2;
        typedef T Row __attribute__((vector_size(lanes * sizeof(T))));
        Row rows[lanes], next[lanes];
        (std::memcpy(&rows[Lane], from + Lane * from_stride, sizeof(Row)), ...);
        for (std::size_t stage = 1; stage < lanes; stage *= 2) {
            ((next[Lane] = Lane % 2 == 0
                               ? __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (Lane / 2 + Lane % 2 * lanes)...)
                               : __builtin_shufflevector(rows[Lane / 2], rows[Lane / 2 + half],
                                                         (half + Lane / 2 + Lane % 2 * lanes)...)),
             ...);
            ((rows[Lane] = next[Lane]), ...);
        }
        (std::memcpy(to + Lane * to_stride, &rows[Lane], sizeof(Row)), ...);
    }
#endif

    [[gnu::always_inline]] static inline V load(const T* from, std::size_t count) {
        return count == lanes ? V::load(from) : V::load(from, count);
    }
    [[gnu::always_inline]] static inline void store(T* to, const V& value, std::size_t count) {
        if (count == lanes) {
            value.store(to);
        } else {
            value.store(to, count);
        }
    }

    [[gnu::always_inline]] static inline void store_as(T* to, const V& value, std::size_t count) { store(to, value, count); }
    [[gnu::always_inline]] static inline void store_two(T* to, const V& first, const V& second) {
        first.store(to);
        second.store(to + lanes);
    }
    template <class Narrow>
    [[gnu::always_inline]] static inline void store_as(Narrow* to, const V& value, std::size_t count) {
        value.store_narrow(to, count);
    }
    template <class Narrow>
    [[gnu::always_inline]] static inline void store_two(Narrow* to, const V& first, const V& second) {
        if constexpr (requires { V::store_narrow(first, second, to); }) {
            V::store_narrow(first, second, to);
        } else {
            first.store_narrow(to, lanes);
            second.store_narrow(to + lanes, lanes);
        }
    }

    struct RowMoments {
        T mean, inverse;
    };
    [[gnu::always_inline]] static inline RowMoments moments_of(const T* x, std::size_t width, T eps, bool has_mean) {
        const std::size_t whole = width / lanes * lanes;
        const T mu = has_mean ? row_sum(x, width) / static_cast<T>(width) : T{0};
        V squares(0);
        for (std::size_t j = 0; j < whole; j += lanes) {
            const V centred = V::load(x + j) - V(mu);
            squares = fma(centred, centred, squares);
        }
        T rest{0};
        for (std::size_t j = whole; j < width; ++j) rest += (x[j] - mu) * (x[j] - mu);
        const T variance = (sum(squares) + rest) / static_cast<T>(width);
        return {mu, T{1} / std::sqrt(variance + eps)};
    }
    [[gnu::always_inline]] static inline V normed(const RowMoments& moments, const T* x, const T* gain, const T* bias,
                                                  std::size_t count) {
        const V shift = bias == nullptr ? V(0) : load(bias, count);
        return fma((load(x, count) - V(moments.mean)) * V(moments.inverse), load(gain, count), shift);
    }

    static T row_sum(const T* x, std::size_t width) {
        V sums(0);
        for (std::size_t j = 0; j < width; j += lanes) sums = sums + load(x + j, width - j < lanes ? width - j : lanes);
        return sum(sums);
    }

    /// e^x. Floats by reduction to |r| <= ln(2) / 2 and the Taylor polynomial of degree 7, below 2 units in the last place.
    static V exp(const V& x) {
        if constexpr (requires { V::exp(x); }) {
            return V::exp(x);
        } else {
            const V held = min(V(88.02f), max(V(-110.0f), x));
            const V power = round(held * V(1.44269504f));
            V r = fma(power, V(-0.693359375f), held);  // ln 2 in two parts
            r = fma(power, V(2.12194440e-4f), r);
            V p = V(1.0f / 5040);
            p = fma(p, r, V(1.0f / 720));
            p = fma(p, r, V(1.0f / 120));
            p = fma(p, r, V(1.0f / 24));
            p = fma(p, r, V(1.0f / 6));
            p = fma(p, r, V(0.5f));
            p = fma(p, r * r, r);
            return scale_by_power(p + V(1), power);
        }
    }

    /// 2^t to 2^-13: a whole power of two, and a cubic polynomial fitted to 2^r on [0, 1].
    static V power_narrow(const V& t) {
        if constexpr (requires { V::fraction(t); }) {
            return scale_by_power(cubic_power(V::fraction(t)), t);
        } else {
            const V held = min(V(126.0f), max(V(-126.0f), t)), power = round(held - V(0.5f));
            return scale_by_power(cubic_power(held - power), power);
        }
    }
    static V cubic_power(const V& r) {
        const V slope = fma(fma(V(0.0780245227f), r, V(0.226067155f)), r, V(0.695833541f));
        return fma(slope, r, V(0.999925219f));
    }
    static V reciprocal(const V& x) {
        if constexpr (requires { V::reciprocal(x); }) {
            return V::reciprocal(x);
        } else {
            return V(1) / x;
        }
    }

    /// erf(x). Floats by a rational function fitted to erf on [0, 3.95], beyond which erf is 1 to 2.4e-8.
    template <bool is_narrow = false>
    static V erf(const V& x) {
        if constexpr (requires { V::erf(x); }) {
            return V::erf(x);
        } else {
            const V z = min(V(3.95f), max(V(-3.95f), x)), s = z * z;
            V p = V(2.0259840312e-06f);
            p = fma(p, s, V(0.00028468173696f));
            p = fma(p, s, V(0.0038078341167f));
            p = fma(p, s, V(0.052874431014f));
            p = fma(p, s, V(0.19154247642f));
            p = fma(p, s, V(1.1283791065f));
            V q = V(3.7832280213e-05f);
            q = fma(q, s, V(0.0011706490769f));
            q = fma(q, s, V(0.015054429881f));
            q = fma(q, s, V(0.11455640197f));
            q = fma(q, s, V(0.50308275223f));
            q = fma(q, s, V(1));
            if constexpr (is_narrow) {
                const V inverse = reciprocal(q);
                return z * p * fma(inverse, fma(V(0) - q, inverse, V(1)), inverse);
            } else {
                return z * p / q;
            }
        }
    }

    template <bool is_narrow = false>
    static V sigmoid(const V& x) {
        if constexpr (is_narrow) {
            return reciprocal(V(1) + power_narrow(V(-1.44269504f) * x));
        } else {
            return V(1) / (V(1) + exp(V(0) - x));
        }
    }

    // Every activation here is x times a gate: Φ(x), σ(1.702 x), σ(x), max(0, x), and σ(2u) with u = sqrt(2/π)(x + 0.044715 x³).
    static constexpr T root_half = static_cast<T>(0.70710678118654752440);
    static constexpr T twice_root = static_cast<T>(1.59576912160573071176);  // 2 sqrt(2/π)
    static constexpr T cubic = static_cast<T>(0.044715), quick = static_cast<T>(1.702);

    static T steepness(Activation activation) { return activation == Activation::silu ? T{1} : quick; }
    template <bool is_narrow = false>
    static V normal_distribution(const V& x) {
        return V(static_cast<T>(0.5)) * (V(1) + erf<is_narrow>(x * V(root_half)));
    }
    template <bool is_narrow = false>
    static V tanh_gate(const V& x) {
        return sigmoid<is_narrow>(V(twice_root) * fma(V(cubic) * x * x, x, x));
    }

    template <bool is_narrow = false>
    [[gnu::always_inline]] static inline V activated(Activation activation, const V& x) {
        switch (activation) {
            case Activation::gelu: return x * normal_distribution<is_narrow>(x);
            case Activation::quick_gelu:
            case Activation::silu: return x * sigmoid<is_narrow>(V(steepness(activation)) * x);
            case Activation::tanh_gelu: return x * tanh_gate<is_narrow>(x);
            case Activation::relu: return max(V(0), x);
            case Activation::squared_relu: return x * max(V(0), x);
            case Activation::none: break;
        }
        return x;
    }

    static V derivative(Activation activation, const V& x) {
        const V one(1);
        switch (activation) {
            case Activation::gelu: {
                const V density = V(static_cast<T>(0.39894228040143267794)) * exp(V(static_cast<T>(-0.5)) * x * x);
                return fma(x, density, normal_distribution(x));
            }
            case Activation::quick_gelu:
            case Activation::silu: {
                const V steep = V(steepness(activation)) * x, gate = sigmoid(steep);
                return gate * fma(steep, one - gate, one);
            }
            case Activation::tanh_gelu: {
                const V gate = tanh_gate(x);
                const V slope = V(twice_root) * fma(V(3 * cubic) * x, x, one);
                return gate * fma(x * slope, one - gate, one);
            }
            case Activation::relu: {
                // Any number above 0, multiplied by the largest twice, is 1 or more.
                const V most(std::numeric_limits<T>::max());
                return V(0) - max(V(-1), (V(0) - max(V(0), x)) * most * most);
            }
            case Activation::squared_relu: return V(2) * max(V(0), x);
            case Activation::none: break;
        }
        return one;
    }
};

/// The conversions that reduced precision needs.
template <class V>
struct Conversions {
    static void narrow(const float* x, bfloat16* y, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::load(x + j, count).store_narrow(y + j, count);
        }
    }

    static void narrow_pairs(const float* first, const float* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            const std::size_t count = size - j < V::lanes ? size - j : V::lanes;
            V::store_narrow_pairs(V::load(first + j, count), V::load(second + j, count), to + 2 * j, count);
        }
    }

    template <class From>
    static void quantise(const From* x, std::uint8_t* y, std::size_t size, float& scale, std::int32_t& zero) {
        // Zero is always among the values, so that it is exact, and a row of zeros has a scale. Two of each: one would wait for itself.
        V low[2]{V(0), V(0)}, high[2]{V(0), V(0)};
        const auto take = [&](std::size_t which, std::size_t j, std::size_t count) __attribute__((always_inline)) {
            const V value = V::load(x + j, count);  // zeros behind the end
            low[which] = min(low[which], value);
            high[which] = max(high[which], value);
        };
        std::size_t j = 0;
        for (; j + 2 * V::lanes <= size; j += 2 * V::lanes) {
            take(0, j, V::lanes);
            take(1, j + V::lanes, V::lanes);
        }
        for (; j < size; j += V::lanes) take(0, j, size - j < V::lanes ? size - j : V::lanes);
        const float least = -VectorKernels<V>::largest(V(0) - min(low[0], low[1])), range = VectorKernels<V>::largest(max(high[0], high[1])) - least;
        scale = range > 0 ? range / 255 : 1;
        const V inverse(1 / scale), shift = round(V(-least) * inverse);
        zero = static_cast<std::int32_t>(std::lrint(-least * (1 / scale)));
        const auto put = [&](std::size_t at, std::size_t count) __attribute__((always_inline)) {
            const V bytes = min(V(255), max(V(0), round(V::load(x + at, count) * inverse) + shift));
            bytes.store_bytes(y + at, count);
        };
        for (j = 0; j + V::lanes <= size; j += V::lanes) put(j, V::lanes);
        if (j < size) put(j, size - j);
    }

    /// Whole vectors: a tile and what belongs to its columns run on to the tile's end.
    struct Bytes {
        const ByteProduct& product;
        std::size_t columns;

        [[gnu::always_inline]] inline V operator()(std::size_t i, std::size_t j, std::size_t) const {
            const V exact = V::difference_of_products(product.sums + i * columns + j, product.row_zero[i],
                                                      product.column_sum + j);
            return exact * V(product.row_scale[i]) * V::load(product.column_scale + j);
        }
    };

    static void finish_bytes(const ByteProduct& product, std::size_t tile_columns, std::size_t rows, std::size_t columns,
                             float* c, std::size_t c_stride, bool accumulate, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, accumulate, finish);
    }

    static void interleave(const bfloat16* first, const bfloat16* second, bfloat16* to, std::size_t size) {
        for (std::size_t j = 0; j < size; j += V::lanes) {
            V::store_pairs(first + j, second + j, to + 2 * j, size - j < V::lanes ? size - j : V::lanes);
        }
    }

    static void transpose_pairs(const bfloat16* from, std::size_t from_stride, std::size_t rows, std::size_t pairs,
                                bfloat16* to, std::size_t to_stride) {
        static_assert(2 * sizeof(bfloat16) == sizeof(float));
        VectorKernels<V>::transpose_bytes(reinterpret_cast<const char*>(from), from_stride / 2, rows, pairs,
                                          reinterpret_cast<char*>(to), to_stride);
    }

    static void finish_narrow(const float* product, std::size_t product_stride, std::size_t rows, std::size_t columns,
                              bfloat16* c, std::size_t c_stride, const Finish<float>& finish) {
        const typename VectorKernels<V>::Sums sums{product, product_stride};
        VectorKernels<V>::finish_product(sums, rows, columns, c, c_stride, false, finish);
    }

    static void finish_bytes_narrow(const ByteProduct& product, std::size_t tile_columns, std::size_t rows,
                                    std::size_t columns, bfloat16* c, std::size_t c_stride, const Finish<float>& finish) {
        VectorKernels<V>::finish_product(Bytes{product, tile_columns}, rows, columns, c, c_stride, false, finish);
    }

    static constexpr NarrowRows narrow_rows{.finish = finish_narrow,
                                            .finish_bytes = finish_bytes_narrow,
                                            .layer_norm = VectorKernels<V>::layer_norm_narrow,
                                            .softmax = VectorKernels<V>::softmax_narrow,
                                            .quantise = quantise<bfloat16>,
                                            .transpose_pairs = transpose_pairs,
                                            .interleave = interleave};
};
