"""Small models in a few lines of torch.nn with every choice of tandem's configs, under tandem's parameter names.

What open_clip has is taken from it; the rest is written from the papers that the library's comments name. A
configuration's towers hold tandem's own field names.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn

VISION = {
    "image": 224, "patch": 32, "width": 768, "layers": 12, "heads": 12, "head_width": 0, "kv_heads": 0, "mlp_ratio": 4.0,
    "class_token": True, "reg_tokens": 0, "pos_embed_type": "learnable", "no_ln_pre": False,
    "final_ln_after_pool": False, "norm_position": "pre", "parallel": False, "qk_norm": False, "ls_init_value": 0.0,
    "patch_dropout": 0.0, "drop_path_rate": 0.0, "norm": "LayerNorm", "activation": "Gelu", "mlp": "Mlp",
    "pooling": "ClassToken", "stem": "PatchStem",
}  # fmt: skip
TEXT = {
    "vocabulary": 49408, "context": 77, "width": 512, "layers": 12, "heads": 8, "head_width": 0, "kv_heads": 0,
    "mlp_ratio": 4.0, "causal": True, "pos_embed_type": "learnable", "final_ln_after_pool": False,
    "norm_position": "pre", "parallel": False, "qk_norm": False, "ls_init_value": 0.0, "token_dropout": 0.0,
    "drop_path_rate": 0.0, "pad_id": -1, "masked_language": None, "norm": "LayerNorm", "activation": "Gelu", "mlp": "Mlp",
    "pooling": "Eot",
}  # fmt: skip

ACTIVATIONS = {
    "Gelu": F.gelu,
    "QuickGelu": lambda x: x * torch.sigmoid(1.702 * x),
    "TanhGelu": lambda x: F.gelu(x, approximate="tanh"),
    "Silu": F.silu,
    "SquaredRelu": lambda x: F.relu(x).square(),
}


class Random:
    """tandem::Random: SplitMix64 with a stream, so that both sides leave out the same."""

    MASK, INCREMENT = (1 << 64) - 1, 0x9E3779B97F4A7C15

    def __init__(self, seed, stream):
        self.state = self.mix(seed + self.INCREMENT) ^ self.mix(self.mix(stream) + 0x632BE59BD9B4E019)

    @classmethod
    def mix(cls, z):
        z &= cls.MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & cls.MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & cls.MASK
        return z ^ (z >> 31)

    def next(self):
        self.state = (self.state + self.INCREMENT) & self.MASK
        return self.mix(self.state)

    def uniform(self):
        return (self.next() >> 11) * 2.0**-53

    def below(self, count):
        return (self.next() * count) >> 64

    def shuffle(self, values):
        for i in range(len(values), 1, -1):
            j = self.below(i)
            values[i - 1], values[j] = values[j], values[i - 1]


def norm(cfg, width):
    return nn.RMSNorm(width, eps=1e-6) if cfg["norm"] == "RmsNorm" else nn.LayerNorm(width, eps=1e-5)


def rotate(x, angles):
    """x [..., token, head width], angles [token, head width / 2]: pairs as complex numbers (Su et al. 2021, eq. 34)."""
    turned = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2).contiguous())
    turned = turned * torch.polar(torch.ones_like(angles), angles).to(turned.dtype)
    return torch.view_as_real(turned).flatten(-2)


def head_width(cfg):
    return cfg["head_width"] or cfg["width"] // cfg["heads"]


def bands(count):
    return 10000.0 ** (-torch.arange(count, dtype=torch.float64) / count)


class Attention(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.heads = cfg["heads"]
        self.kv_heads = cfg["kv_heads"] or self.heads
        self.head_width = head_width(cfg)
        rows = (self.heads + 2 * self.kv_heads) * self.head_width
        self.in_proj_weight = nn.Parameter(torch.randn(rows, cfg["width"]) * cfg["width"] ** -0.5)
        self.in_proj_bias = nn.Parameter(torch.zeros(rows))
        self.ln_q = norm(cfg, self.head_width) if cfg["qk_norm"] else nn.Identity()
        self.ln_k = norm(cfg, self.head_width) if cfg["qk_norm"] else nn.Identity()
        self.out_proj = nn.Linear(self.heads * self.head_width, cfg["width"])

    def forward(self, x, causal, angles, seen):
        n, tokens, _ = x.shape
        parts = [self.heads * self.head_width, self.kv_heads * self.head_width, self.kv_heads * self.head_width]
        split = F.linear(x, self.in_proj_weight, self.in_proj_bias).split(parts, -1)
        q, k, v = (part.reshape(n, tokens, -1, self.head_width).transpose(1, 2) for part in split)
        q, k = self.ln_q(q), self.ln_k(k)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, is_causal=causal, enable_gqa=self.kv_heads != self.heads)
        return self.out_proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        hidden = int(cfg["width"] * cfg["mlp_ratio"])
        self.activation = ACTIVATIONS[cfg["activation"]]
        self.c_fc = nn.Linear(cfg["width"], hidden)
        self.c_proj = nn.Linear(hidden, cfg["width"])

    def forward(self, x):
        return self.c_proj(self.activation(self.c_fc(x)))


class GatedMlp(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        hidden = int(cfg["width"] * cfg["mlp_ratio"])
        self.activation = ACTIVATIONS[cfg["activation"]]
        self.fc1_g = nn.Linear(cfg["width"], hidden)
        self.fc1_x = nn.Linear(cfg["width"], hidden)
        self.fc2 = nn.Linear(hidden, cfg["width"])

    def forward(self, x):
        return self.fc2(self.activation(self.fc1_g(x)) * self.fc1_x(x))


class LayerScale(nn.Module):
    def __init__(self, width, value):
        super().__init__()
        self.gamma = nn.Parameter(value * torch.ones(width))

    def forward(self, x):
        return x * self.gamma


class Block(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        width, self.position, self.parallel = cfg["width"], cfg["norm_position"], cfg["parallel"]
        sandwich, scale = self.position == "sandwich", cfg["ls_init_value"]
        self.ln_1 = norm(cfg, width)
        self.attn = Attention(cfg)
        self.ln_attn = norm(cfg, width) if sandwich else nn.Identity()
        self.ls_1 = LayerScale(width, scale) if scale else nn.Identity()
        if not self.parallel:
            self.ln_2 = norm(cfg, width)
        self.mlp = (GatedMlp if cfg["mlp"] == "GatedMlp" else Mlp)(cfg)
        self.ln_mlp = norm(cfg, width) if sandwich else nn.Identity()
        self.ls_2 = LayerScale(width, scale) if scale else nn.Identity()

    def forward(self, x, causal, angles, seen, drop):
        def mix(y):
            return drop[0] * self.ls_1(self.ln_attn(self.attn(y, causal, angles, seen)))

        def feed(y):
            return drop[1] * self.ls_2(self.ln_mlp(self.mlp(y)))

        if self.parallel:
            normed = self.ln_1(x)
            return x + mix(normed) + feed(normed)
        if self.position == "post":
            x = self.ln_1(x + mix(x))
            return self.ln_2(x + feed(x))
        x = x + mix(self.ln_1(x))
        return x + feed(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(cfg) for _ in range(cfg["layers"]))

    def forward(self, x, causal, angles, rate, randoms, seen=None):
        """randoms: where stochastic depth draws from in training, one for each sequence; None: nothing is dropped. seen
        [sequence, 1, 1, token]: which tokens are no padding; None: all."""
        for i, block in enumerate(self.resblocks):
            share = rate * i / (len(self.resblocks) - 1) if len(self.resblocks) > 1 else 0
            drop = (1.0, 1.0)
            if randoms is not None and share > 0:
                kept = [[0.0 if random.uniform() < share else 1 / (1 - share) for random in randoms] for _ in range(2)]
                drop = [torch.tensor(factors, dtype=x.dtype)[:, None, None] for factors in kept]
            x = block(x, causal, angles, seen, drop)
        return x


class AttentionPool(nn.Module):
    """timm/layers/attention_pool.py, AttentionPoolLatent, as SigLIP uses it."""

    def __init__(self, cfg):
        super().__init__()
        width, self.heads = cfg["width"], cfg["heads"]
        self.latent = nn.Parameter(torch.randn(1, width) * width**-0.5)
        self.q, self.kv, self.proj = nn.Linear(width, width), nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.norm = norm(cfg, width)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, int(width * cfg["mlp_ratio"])),
                                  "fc2": nn.Linear(int(width * cfg["mlp_ratio"]), width)})  # fmt: skip
        self.activation = ACTIVATIONS[cfg["activation"]]

    def forward(self, x):
        n = len(x)
        q = self.q(self.latent.expand(n, 1, -1))
        k, v = self.kv(x).chunk(2, -1)
        q, k, v = (part.reshape(n, part.shape[1], self.heads, -1).transpose(1, 2) for part in (q, k, v))
        x = self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        x = x + self.mlp["fc2"](self.activation(self.mlp["fc1"](self.norm(x))))
        return x[:, 0]


class ConvStage(nn.Module):
    def __init__(self, cfg, before, after):
        super().__init__()
        self.activation = ACTIVATIONS[cfg["activation"]]
        self.conv = nn.Module()
        self.conv.weight = nn.Parameter(torch.randn(after, 3, 3, before) * (2 / (9 * before)) ** 0.5)
        self.norm = norm(cfg, after)

    def forward(self, x):
        x = F.conv2d(x, self.conv.weight.permute(0, 3, 1, 2), stride=2, padding=1)
        return self.activation(self.norm(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


def sides(image):
    """(height, width) of an image size, a number or both."""
    return tuple(image) if isinstance(image, list) else (image, image)


class Vision(nn.Module):
    def __init__(self, cfg, embedding):
        super().__init__()
        self.cfg, width = cfg, cfg["width"]
        self.rows, self.columns = (side // cfg["patch"] for side in sides(cfg["image"]))
        if cfg["stem"] == "ConvStem":
            stages = int(math.log2(cfg["patch"]))
            channels = [3] + [width >> (stages - 1 - i) for i in range(stages)]
            self.stem = nn.ModuleDict({str(i): ConvStage(cfg, *channels[i : i + 2]) for i in range(stages)})
            self.stem["proj"] = nn.Linear(width, width)
        else:
            self.conv1 = nn.Conv2d(3, width, cfg["patch"], cfg["patch"], bias=False)
        learned = self.rows * self.columns + cfg["class_token"] if cfg["pos_embed_type"] == "learnable" else 0
        if cfg["class_token"]:
            self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        if cfg["reg_tokens"]:
            self.reg_token = nn.Parameter(torch.randn(cfg["reg_tokens"], width) * width**-0.5)
        if learned:
            self.positional_embedding = nn.Parameter(torch.randn(learned, width) * width**-0.5)
        self.ln_pre = nn.Identity() if cfg["no_ln_pre"] else norm(cfg, width)
        self.transformer = Transformer(cfg)
        self.ln_post = norm(cfg, width)
        if cfg["pooling"] == "AttentionPool":
            self.attn_pool = AttentionPool(cfg)
        self.proj = nn.Parameter(torch.randn(width, embedding) * width**-0.5)

    def embed(self, image):
        if self.cfg["stem"] == "ConvStem":
            for key in list(self.stem)[:-1]:
                image = self.stem[key](image)
            return self.stem["proj"](image.flatten(2).transpose(1, 2))
        return self.conv1(image).flatten(2).transpose(1, 2)

    def forward(self, image, randoms):
        cfg, n = self.cfg, len(image)
        x = self.embed(image)
        has_class, prefix = cfg["class_token"], cfg["class_token"] + cfg["reg_tokens"]
        places = None
        if cfg["pos_embed_type"] == "learnable":
            places = self.positional_embedding
        elif cfg["pos_embed_type"] == "sin_cos_2d":
            from open_clip.pos_embed import get_2d_sincos_pos_embed

            table = get_2d_sincos_pos_embed(cfg["width"], self.rows, cls_token=has_class)  # squares only
            places = torch.from_numpy(table).to(x.dtype)
        first = []
        if has_class:
            first.append((self.class_embedding + (places[0] if places is not None else 0)).expand(n, 1, -1))
        if cfg["reg_tokens"]:
            first.append(self.reg_token.expand(n, -1, -1))
        if places is not None:
            x = x + places[has_class:]
        x = torch.cat([*first, x], 1)
        kept = torch.arange(x.shape[1]).expand(n, -1)
        if randoms is not None and cfg["patch_dropout"]:
            patches = self.rows * self.columns
            count = max(1, int(patches * (1 - cfg["patch_dropout"])))
            rows = []
            for random in randoms:
                order = list(range(prefix, prefix + patches))
                random.shuffle(order)
                rows.append([*range(prefix), *sorted(order[:count])])
            kept = torch.tensor(rows)
            x = torch.gather(x, 1, kept[:, :, None].expand(-1, -1, x.shape[2]))
        angles = None
        if cfg["pos_embed_type"] == "rotary":
            half = head_width(cfg) // 2
            patch = torch.arange(self.rows * self.columns, dtype=torch.float64)
            row, column = patch.div(self.columns, rounding_mode="floor"), patch % self.columns
            turns = torch.cat([row[:, None] * bands(half // 2), column[:, None] * bands(half // 2)], 1)
            angles = torch.cat([torch.zeros(prefix, half), turns])[kept].unsqueeze(1).to(x.dtype)
        x = self.transformer(self.ln_pre(x), False, angles, cfg["drop_path_rate"], randoms)
        if cfg["pooling"] == "ClassToken":
            x = self.ln_post(x[:, 0])
        else:
            pool = self.attn_pool if cfg["pooling"] == "AttentionPool" else lambda y: y[:, prefix:].mean(1)
            x = self.ln_post(pool(x)) if cfg["final_ln_after_pool"] else pool(self.ln_post(x))
        return x @ self.proj


class MaskedLanguageHead(nn.Module):
    """transformers/models/bert/modeling_bert.py, BertLMPredictionHead, whose decoder is the table of tokens, behind a norm."""

    def __init__(self, cfg):
        super().__init__()
        self.activation, width = ACTIVATIONS[cfg["activation"]], cfg["width"]
        self.ln_in, self.dense, self.norm = norm(cfg, width), nn.Linear(width, width), norm(cfg, width)
        self.bias = nn.Parameter(torch.zeros(cfg["vocabulary"]))

    def forward(self, x, table):
        return F.linear(self.norm(self.activation(self.dense(self.ln_in(x)))), table, self.bias)

    def check(self, x, table):
        """Raises unless transformers' own class has the same logits."""
        from transformers.models.bert.modeling_bert import BertConfig, BertLMPredictionHead

        sizes = {"hidden_size": x.shape[-1], "vocab_size": len(table), "layer_norm_eps": self.norm.eps}
        theirs = BertLMPredictionHead(BertConfig(hidden_act="gelu", **sizes)).to(x.dtype)
        theirs.load_state_dict({"transform.dense.weight": self.dense.weight, "transform.dense.bias": self.dense.bias,
                                "transform.LayerNorm.weight": self.norm.weight, "transform.LayerNorm.bias": self.norm.bias,
                                "decoder.weight": table, "decoder.bias": self.bias, "bias": self.bias})  # fmt: skip
        torch.testing.assert_close(self.forward(x, table), theirs(self.ln_in(x)))


class Reference(nn.Module):
    """The whole model; text parameters stand at the top level, as open_clip has them."""

    def __init__(self, config):
        super().__init__()
        self.cfg = cfg = config["text_cfg"]
        self.config, width = config, cfg["width"]
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        self.visual = Vision(config["vision_cfg"], config["embed_dim"])
        self.token_embedding = nn.Embedding(cfg["vocabulary"], width)
        nn.init.normal_(self.token_embedding.weight, std=0.02)
        if cfg["pos_embed_type"] == "learnable":
            self.positional_embedding = nn.Parameter(torch.randn(cfg["context"], width) * 0.01)
        if not config["shared"]:
            self.transformer = Transformer(cfg)
        self.ln_final = norm(cfg, width)
        if cfg["pooling"] == "AttentionPool":
            self.text_pool = AttentionPool(cfg)
        self.text_projection = nn.Parameter(torch.randn(width, config["embed_dim"]) * width**-0.5)
        if cfg["masked_language"]:
            self.mlm_head = MaskedLanguageHead(cfg)

    def encode_text(self, tokens, randoms):
        """The embeddings, and what masked language adds to the loss."""
        cfg = self.cfg
        if randoms is not None and cfg["token_dropout"]:
            tokens = torch.tensor([self.drop(row.tolist(), random) for row, random in zip(tokens, randoms)])
        seen, labels = (tokens != cfg["pad_id"])[:, None, None, :] if cfg["pad_id"] >= 0 else None, None
        if randoms is not None and cfg["masked_language"]:
            tokens, randoms, labels = self.mask(tokens, randoms)
            seen = seen.repeat_interleave(2, 0)
        x = self.token_embedding(tokens)
        angles = None
        if cfg["pos_embed_type"] == "learnable":
            x = x + self.positional_embedding
        else:
            half = head_width(cfg) // 2
            place = torch.arange(cfg["context"], dtype=torch.float64)
            angles = (place[:, None] * bands(half)).to(x.dtype)
        blocks = self.visual.transformer if self.config["shared"] else self.transformer
        x = blocks(x, cfg["causal"], angles, cfg["drop_path_rate"], randoms, seen)
        masked_loss = 0.0
        if labels is not None:
            told = x[labels >= 0]
            self.mlm_head.check(told.detach(), self.token_embedding.weight)
            logits = self.mlm_head(told, self.token_embedding.weight)
            masked_loss = cfg["masked_language"]["weight"] * F.cross_entropy(logits, labels[labels >= 0])
            x, tokens = x[0::2], tokens[0::2]
        return self.pooled(x, tokens), masked_loss

    def pooled(self, x, tokens):
        cfg = self.cfg
        end = tokens.argmax(-1)
        if cfg["pooling"] in ("Eot", "Last"):
            row = end if cfg["pooling"] == "Eot" else torch.full_like(end, cfg["context"] - 1)
            return self.ln_final(x[torch.arange(len(x)), row]) @ self.text_projection
        pool = self.text_pool if cfg["pooling"] == "AttentionPool" else lambda y: y.mean(1)
        pooled = []
        for states, last in zip(x, end.tolist()):
            rows = states[None, : last + 1] if cfg["causal"] or cfg["pad_id"] >= 0 else states[None]
            pooled.append(self.ln_final(pool(rows)) if cfg["final_ln_after_pool"] else pool(self.ln_final(rows)))
        return torch.cat(pooled) @ self.text_projection

    def mask(self, tokens, randoms):
        """Every caption, and behind it the same with tokens to be told; where those draw on from; what is to be told, and -100
        elsewhere, as transformers' DataCollatorForLanguageModeling has it."""
        cfg, choice = self.cfg, self.cfg["masked_language"]
        captions, rest, labels = [], [], []
        for ids, random in zip(tokens.tolist(), randoms):
            twin = Random(random.next(), 0)
            changed, label = list(ids), [-100] * len(ids)
            for i in range(1, ids.index(max(ids))):
                if twin.uniform() >= choice["share"]:
                    continue
                label[i], fate = ids[i], twin.uniform()
                if fate < 0.8:
                    changed[i] = choice["mask"]
                elif fate < 0.9:
                    changed[i] = twin.below(cfg["vocabulary"])
            captions += [ids, changed]
            rest += [random, twin]
            labels += [[-100] * len(ids), label]
        return torch.tensor(captions), rest, torch.tensor(labels)

    def drop(self, ids, random):
        end = ids.index(max(ids))
        if end < 2:
            return ids
        count = max(1, int((end - 1) * (1 - self.cfg["token_dropout"])))
        kept = []
        for i in range(1, end):
            if random.below(end - i) < count - len(kept):
                kept.append(ids[i])
        closed = [ids[0], *kept, *ids[end:]]
        return closed + [ids[-1] if end + 1 < len(ids) else 0] * (len(ids) - len(closed))


class Torch:
    """The reference as an oracle of make_fixtures.py: embeddings without dropouts, the loss with them."""

    version = "1"

    def __init__(self, config):
        self.model = Reference(config)
        self.config = config

    def embed(self, image, tokens, randoms):
        captions, masked_loss = self.model.encode_text(tokens, randoms[1])
        return F.normalize(self.model.visual(image, randoms[0]), dim=-1), F.normalize(captions, dim=-1), masked_loss

    def __call__(self, image, tokens):
        from open_clip.loss import ClipLoss

        plain = self.embed(image, tokens, (None, None))[:2]
        seeds = [Random(0, tower).next() for tower in range(2)]
        *trained, masked_loss = self.embed(image, tokens, [[Random(seed, i) for i in range(len(image))] for seed in seeds])
        return *plain, ClipLoss()(*trained, logit_scale=self.model.logit_scale.exp()) + masked_loss

    def key_bias_rows(self, key, parameter):
        """A key bias that is normed or rotated has a gradient."""
        cfg = self.config["vision_cfg" if key.startswith("visual.") else "text_cfg"]
        if key.endswith("pool.kv.bias"):
            return slice(0, parameter.shape[0] // 2)
        rotary = [self.config[tower]["pos_embed_type"] == "rotary" for tower in ("vision_cfg", "text_cfg")]
        is_rotary = any(rotary) if self.config["shared"] else cfg["pos_embed_type"] == "rotary"
        if key.endswith("ln_k.bias") and not is_rotary:
            return slice(None)
        if not key.endswith("in_proj_bias") or cfg["qk_norm"] or is_rotary:
            return None
        queries = cfg["heads"] * head_width(cfg)
        return slice(queries, queries + (cfg["kv_heads"] or cfg["heads"]) * head_width(cfg))
