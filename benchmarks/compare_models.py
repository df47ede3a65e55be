"""What benchmarks/compare.py compares: open_clip's models with random weights, inputs, and the peers' formats of them.

    compare_models.py FOLDER        writes them into FOLDER, which is named by a model; does nothing where that was done before

Of ViT-B/32 both towers, of the others the image tower.
"""

import hashlib
import random
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
SVG = Path("/usr/share/openclipart/svg")  # Debian package openclipart-svg
CAPTIONS, CALIBRATION = 1000, 32  # the second: of captions; of images all are taken
# tandem's name: open_clip's, and how many images there are: those that are embedded for the comparison with it, and calibrate bytes.
MODELS = {"vit_b_32": ("ViT-B-32", 32), "vit_l_14": ("ViT-L-14", 8), "vit_b_16_siglip": ("ViT-B-16-SigLIP", 8)}


def checkpoint(folder):
    """The model, in evaluation mode, with the weights that all sides read."""
    import open_clip
    import safetensors.torch

    model = open_clip.create_model(MODELS[folder.name][0], load_weights=False)
    model.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))
    return model.eval()


def towers(model):
    """Modules from images, and from ids of any length up to the context, to embeddings of length 1."""
    import torch

    class Image(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, images):
            return self.model.encode_image(images, normalize=True)

    class Text(torch.nn.Module):
        """open_clip's encode_text, which accepts the full context only."""

        def __init__(self):
            super().__init__()
            self.model = model

        def forward(self, ids):
            model, length = self.model, ids.shape[1]
            x = model.token_embedding(ids) + model.positional_embedding[:length]
            x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
            x = x[torch.arange(x.shape[0]), ids.argmax(dim=-1)] @ model.text_projection
            return torch.nn.functional.normalize(x, dim=-1)

    # The fused inference path of nn.MultiheadAttention has no ONNX form, and hides the products from the compiler.
    torch.backends.mha.set_fastpath_enabled(False)
    return Image().eval(), Text().eval()


def captions():
    """Titles and keywords of drawings, drawn at random. Equal ones count once: hundreds of drawings share a title."""
    sys.path.insert(0, str(HERE.parent / "examples" / "quickstart"))
    import openclipart

    found = [openclipart.title_and_keywords(openclipart.read_metadata(path)) for path in sorted(SVG.rglob("*.svg"))]
    found = [caption for caption in dict.fromkeys(found) if caption]
    if len(found) < CAPTIONS:
        sys.exit(f"compare_models.py: {SVG}: {len(found)} captions; install openclipart-svg")
    return random.Random(0).sample(found, CAPTIONS)


def write_onnx(folder, name, tower, x, dimensions):
    import torch
    from onnxruntime.quantization import QuantType, quantize_dynamic

    shape = {i: torch.export.Dim(dimension, max=77 if dimension == "length" else None)
             for i, dimension in enumerate(dimensions)}
    program = torch.onnx.export(tower, (x,), dynamo=True, dynamic_shapes=(shape,), input_names=["x"],
                                output_names=["y"])
    program.save(folder / f"{name}.f32.onnx")
    quantize_dynamic(folder / f"{name}.f32.onnx", folder / f"{name}.int8.onnx", weight_type=QuantType.QInt8,
                     per_channel=True)


def write_openvino(folder, name, items):
    import nncf
    import openvino

    model = openvino.Core().read_model(folder / f"{name}.f32.onnx")
    quantised = nncf.quantize(model, nncf.Dataset(items), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(items))
    for precision, either in (("f32", model), ("int8", quantised)):
        openvino.save_model(either, folder / f"{name}.{precision}.xml", compress_to_fp16=False)
        if name == "image":
            either.reshape([1, 3, 224, 224])
            openvino.save_model(either, folder / f"image_1.{precision}.xml", compress_to_fp16=False)


def write_all(folder):
    import open_clip
    import safetensors.torch
    import torch

    name, count = MODELS[folder.name]
    torch.manual_seed(0)
    model = open_clip.create_model(name, load_weights=False)
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    image, text = towers(model.eval())
    images = torch.randn(count, 3, 224, 224)
    images.numpy().tofile(folder / "images.f32")
    with torch.inference_mode():
        image(images).numpy().tofile(folder / "image.reference")
    with torch.no_grad():
        write_onnx(folder, "image", image, images[:2], ["batch"])
    write_openvino(folder, "image", list(images.split(1)))
    if name == "ViT-B-32":
        write_texts(folder, text, count)


def write_texts(folder, text, count):
    import numpy
    import open_clip
    import torch

    ids = open_clip.get_tokenizer("ViT-B-32")(captions())
    lengths = ids.argmax(dim=1) + 1
    print(f"{CAPTIONS} captions of {lengths.float().mean():.1f} tokens on average, the longest of {lengths.max()}")
    ids.numpy().astype(numpy.int32).tofile(folder / "ids.i32")
    with torch.inference_mode():
        text(ids[:count]).numpy().tofile(folder / "text.reference")
    with torch.no_grad():
        write_onnx(folder, "text", text, ids[:2, :40], ["batch", "length"])
    write_openvino(folder, "text", list(ids[-CALIBRATION:].split(1)))


def main():
    folder = Path(sys.argv[1]).resolve()
    if folder.name not in MODELS:
        sys.exit(f"compare_models.py: {folder}: expected a folder named {', '.join(MODELS)}")
    sources = [Path(__file__), HERE / "compare_requirements.txt"]
    stamp = hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()
    done = folder / "done"
    if done.is_file() and done.read_text() == stamp:
        return
    folder.mkdir(parents=True, exist_ok=True)
    done.unlink(missing_ok=True)
    print(f"Making {MODELS[folder.name][0]} and the peers' formats of it", flush=True)
    write_all(folder)
    done.write_text(stamp)


if __name__ == "__main__":
    main()
