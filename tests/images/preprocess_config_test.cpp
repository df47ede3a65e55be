// Preprocessing as configs ask for it; the pixels are compared with the originals' by tests/parity/families.py.
#include <catch2/catch.hpp>

#include <unistd.h>

#include <array>
#include <filesystem>
#include <fstream>
#include <string>

#include <tandem/images/preprocess_config.hpp>

namespace fs = std::filesystem;
using Catch::Matchers::Contains;
using tandem::Filter;
using tandem::Fit;
using tandem::Preprocess;

namespace {

class Folder {
public:
    Folder() { fs::create_directory(path); }
    ~Folder() { fs::remove_all(path); }
    Folder(const Folder&) = delete;
    Folder& operator=(const Folder&) = delete;
    void write(const char* name, const std::string& text) const {
        for (const char* other : {"open_clip_config.json", "preprocessor_config.json", "processor_config.json"})
            fs::remove(path / other);
        std::ofstream(path / name) << text;
    }
    Preprocess load() const { return tandem::load_preprocess(path, tandem::openai_preprocess(224)); }

    const fs::path path = fs::temp_directory_path() / ("tandem-preprocess-" + std::to_string(::getpid()));
};

}  // namespace

TEST_CASE("open_clip's preprocess_cfg") {
    const Folder folder;
    folder.write("open_clip_config.json",
                 R"({"model_cfg": {"vision_cfg": {"image_size": 256}}, "preprocess_cfg": {"mean": [0.5, 0.4, 0.3],
        "std": [0.1, 0.2, 0.3], "interpolation": "bilinear", "resize_mode": "squash"}})");
    const Preprocess recipe = folder.load();
    CHECK(recipe.size == 256);
    CHECK(recipe.fit == Fit::squash);
    CHECK(recipe.filter == Filter::bilinear);
    CHECK(recipe.mean == std::array{0.5F, 0.4F, 0.3F});
    CHECK(recipe.deviation == std::array{0.1F, 0.2F, 0.3F});
    CHECK_FALSE(recipe.floor_crop);
    CHECK(recipe.resampling == tandem::Resampling::pillow_13);
    folder.write("open_clip_config.json", R"({"model_cfg": {}, "preprocess_cfg": {"resize_mode": "longest"}})");
    CHECK(folder.load().fit == Fit::pad);
    CHECK(folder.load().mean == tandem::openai_preprocess(224).mean);
    folder.write("open_clip_config.json", R"({"preprocess_cfg": {"resize_mode": "stretch"}})");
    CHECK_THROWS_WITH(folder.load(), Contains("open_clip_config.json: expected preprocess_cfg.resize_mode = shortest, "
                                              "squash or longest, found \"stretch\""));
    folder.write("open_clip_config.json", R"({"preprocess_cfg": {"interpolation": "lanczos"}})");
    CHECK_THROWS_WITH(folder.load(), Contains("found \"lanczos\""));
    folder.write("open_clip_config.json", R"({"preprocess_cfg": {"mean": [1, 2]}})");
    CHECK_THROWS_WITH(folder.load(), Contains("expected preprocess_cfg.mean = 1 or 3 numbers, found 1, 2"));
}

TEST_CASE("transformers' preprocessor_config.json, old and new, and processor_config.json") {
    const Folder folder;
    const std::string clip =
        R"({"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224},
        "image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "resample": 3, "rescale_factor": 0.00392156862745098})";
    folder.write("preprocessor_config.json", clip);
    const Preprocess recipe = folder.load();
    CHECK(recipe.size == 224);
    CHECK(recipe.resize == 256);
    CHECK(recipe.fit == Fit::shortest_then_crop);
    CHECK(recipe.floor_crop);
    CHECK(recipe.resampling == tandem::Resampling::torchvision);
    CHECK(recipe.background == tandem::white);
    CHECK(recipe.mean == std::array{0.1F, 0.2F, 0.3F});
    CHECK(recipe.deviation == std::array{0.4F, 0.5F, 0.6F});
    folder.write("processor_config.json",
                 R"({"image_processor": )" + clip + R"(, "processor_class": "CLIPProcessor"})");
    CHECK(folder.load().resize == 256);
    CHECK(folder.load().mean == recipe.mean);
    folder.write("processor_config.json", R"({"processor_class": "CLIPProcessor"})");
    CHECK(folder.load().mean == tandem::openai_preprocess(224).mean);
    folder.write("preprocessor_config.json",
                 R"({"feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 336, "resample": 3})");
    CHECK(folder.load().size == 336);
    CHECK(folder.load().resize == 0);
    folder.write(
        "preprocessor_config.json",
        R"({"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 384}, "resample": 2})");
    CHECK(folder.load().fit == Fit::squash);
    CHECK(folder.load().size == 384);
    CHECK(folder.load().filter == Filter::bilinear);
    CHECK(folder.load().mean == std::array{0.5F, 0.5F, 0.5F});
    folder.write("preprocessor_config.json",
                 R"({"image_processor_type": "EfficientNetImageProcessor", "size": {"height": 346, "width": 346},
        "crop_size": {"height": 289, "width": 289}, "do_center_crop": true, "do_normalize": false, "rescale_factor": 0.00784313725490196,
        "rescale_offset": true, "include_top": false, "resample": 2})");
    const Preprocess align = folder.load();
    CHECK(align.fit == Fit::squash);
    CHECK(align.size == 289);
    CHECK(align.resize == 346);
    for (std::size_t i = 0; i < 3; ++i) {
        CHECK(align.mean[i] == Approx(0.5));
        CHECK(align.deviation[i] == Approx(0.5));
    }
    folder.write("preprocessor_config.json",
                 R"({"image_processor_type": "SiglipImageProcessor", "size": {"height": 384, "width": 192}})");
    CHECK(folder.load().size == tandem::ImageSize(384, 192));
    folder.write("preprocessor_config.json",
                 R"({"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 192, "width": 224}})");
    CHECK(folder.load().size == tandem::ImageSize(192, 224));
    folder.write("preprocessor_config.json",
                 R"({"image_processor_type": "SiglipImageProcessor", "size": {"height": 384}})");
    CHECK_THROWS_WITH(
        folder.load(),
        Contains("preprocessor_config.json: expected size.width = a number beside the other side, found nothing"));
    folder.write("preprocessor_config.json", R"({"image_processor_type": "EfficientNetImageProcessor",
        "size": {"height": 384, "width": 192}, "do_center_crop": true, "crop_size": {"height": 64, "width": 64}})");
    CHECK_THROWS_WITH(folder.load(), Contains("expected size = equal height and width, of which a part is cropped"));
    const auto refused = [&](const std::string& fields, const std::string& message) {
        folder.write("preprocessor_config.json", R"({"image_processor_type": "CLIPImageProcessor", )" + fields + "}");
        CHECK_THROWS_WITH(folder.load(), Contains("preprocessor_config.json: expected " + message));
    };
    refused(R"("image_std": [0.5, 0, 0.5])", "image_std = numbers above 0, found 0.5, 0, 0.5");
    refused(R"("image_mean": "grey")", "image_mean = a number, found \"grey\"");
    refused(R"("size": {"shortest_edge": 100})", "size.shortest_edge = the crop_size, 224, or more, found 100");
    refused(R"("size": {"shortest_edge": 224, "longest_edge": 300})",
            "size.longest_edge = nothing: a size has a shortest_edge, or height and width, found 300");
    folder.write("preprocessor_config.json", R"({"image_processor_type": "CLIPImageProcessor", "resample": 1})");
    CHECK_THROWS_WITH(folder.load(), Contains("expected resample = 2 (bilinear) or 3 (bicubic), found 1"));
    folder.write("preprocessor_config.json",
                 R"({"image_processor_type": "CLIPImageProcessor", "crop_size": {"height": 0, "width": 0}})");
    CHECK_THROWS_WITH(folder.load(), Contains("expected crop_size.height = 1 to 16384 pixels, found 0"));
}

TEST_CASE("a squash that is cropped is the middle of the larger square; floored crops begin half a pixel before") {
    tandem::Image image{12, 9, std::vector<std::uint8_t>(12 * 9 * 3)};
    for (std::size_t i = 0; i < image.pixels.size(); ++i) image.pixels[i] = static_cast<std::uint8_t>(i * 7 % 251);
    Preprocess recipe{.size = 5, .fit = Fit::squash, .resize = 8};
    CHECK(tandem::fit_image(image, recipe) == tandem::crop(tandem::resize(image, 8, 8, Filter::bicubic), {2, 2, 5, 5}));
    recipe.floor_crop = true;
    CHECK(tandem::fit_image(image, recipe) == tandem::crop(tandem::resize(image, 8, 8, Filter::bicubic), {1, 1, 5, 5}));
    recipe.resize = 4;
    CHECK_THROWS_WITH(tandem::fit_image(image, recipe), Contains("expected a resize to 5 pixels or more, found 4"));
}
