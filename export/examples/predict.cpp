// Predicts the class of an image with ONNX Runtime: predict BUNDLE IMAGE.ppm
#include <onnxruntime_cxx_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <iostream>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "model.h"  // the manifest as constants, written by compress bundle

struct Image {
  int width = 0, height = 0;
  std::vector<uint8_t> rgb;  // rows of red, green, blue
};

int read_number(std::istream& file) {
  while (file >> std::ws && file.peek() == '#') file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  int number = 0;
  file >> number;
  return number;
}

// Reads a binary PPM of 8 bits. In an application, the pixels come from a camera or from an image library.
Image read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  char magic[2] = {};
  file.read(magic, 2);
  Image image;
  image.width = read_number(file);
  image.height = read_number(file);
  const int largest = read_number(file);
  file.get();
  if (!file || magic[0] != 'P' || magic[1] != '6' || largest != 255 || image.width < 1 || image.height < 1)
    throw std::runtime_error(path + ": not a binary PPM of 8 bits; make one with: convert photo.jpg photo.ppm");
  image.rgb.resize(size_t{3} * image.width * image.height);
  file.read(reinterpret_cast<char*>(image.rgb.data()), static_cast<std::streamsize>(image.rgb.size()));
  if (!file) throw std::runtime_error(path + ": the file ends too early");
  return image;
}

double sinc(double x) { return x == 0 ? 1 : std::sin(M_PI * x) / (M_PI * x); }

// Returns the weight of a pixel at a distance from the centre, for the interpolations of Pillow.
double weight(double x) {
  x = std::abs(x);
  if (model::interpolation == "bilinear") return std::max(0.0, 1 - x);
  if (model::interpolation == "lanczos") return x < 3 ? sinc(x) * sinc(x / 3) : 0;
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1;  // bicubic, a = -0.5
  return x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0;
}

// Returns the weights of the pixels of a row for one pixel of the resized row, and the first of them.
std::vector<double> weights(int from, int to, int pixel, int& first) {
  const double scale = static_cast<double>(from) / to, centre = (pixel + 0.5) * scale;
  first = static_cast<int>(centre);
  if (model::interpolation == "nearest") return {1.0};
  const double wider = std::max(scale, 1.0);  // smaller images average more pixels
  const double support = wider * (model::interpolation == "bilinear" ? 1 : model::interpolation == "bicubic" ? 2 : 3);
  first = std::max(0, static_cast<int>(centre - support + 0.5));
  const int last = std::min(from, static_cast<int>(centre + support + 0.5));
  std::vector<double> result;
  double sum = 0;
  for (int x = first; x < last; ++x) sum += result.emplace_back(weight((x + 0.5 - centre) / wider));
  for (double& value : result) value /= sum;
  return result;
}

// Returns the image with another width, and with rows and columns swapped.
Image resize_and_transpose(const Image& image, int width) {
  Image result{image.height, width, std::vector<uint8_t>(size_t{3} * image.height * width)};
  for (int x = 0; x < width; ++x) {
    int first = 0;
    const std::vector<double> factors = weights(image.width, width, x, first);
    for (int y = 0; y < image.height; ++y)
      for (int channel = 0; channel < 3; ++channel) {
        double sum = 0;
        for (size_t i = 0; i < factors.size(); ++i)
          sum += factors[i] * image.rgb[(size_t(y) * image.width + first + i) * 3 + channel];
        result.rgb[(size_t(x) * image.height + y) * 3 + channel] =
            static_cast<uint8_t>(std::clamp(std::floor(sum + 0.5), 0.0, 255.0));
      }
  }
  return result;
}

// Replaces red, green and blue by their luma (ITU-R BT.601, rounded as in Pillow).
void make_grey(Image& image) {
  for (auto rgb = image.rgb.begin(); rgb != image.rgb.end(); rgb += 3)
    std::fill_n(rgb, 3, static_cast<uint8_t>((rgb[0] * 19595 + rgb[1] * 38470 + rgb[2] * 7471 + 0x8000) >> 16));
}

// Resizes the image and crops the centre.
Image resize_and_crop(const Image& image) {
  const double scale = std::max(static_cast<double>(model::resized_height) / image.height,
                                static_cast<double>(model::resized_width) / image.width);
  const int width = std::max(model::resized_width, static_cast<int>(std::nearbyint(image.width * scale)));
  const int height = std::max(model::resized_height, static_cast<int>(std::nearbyint(image.height * scale)));
  const Image whole = resize_and_transpose(resize_and_transpose(image, width), height);
  const int left = (width - model::width) / 2, top = (height - model::height) / 2;
  Image result{model::width, model::height, {}};
  for (int y = top; y < top + model::height; ++y) {
    const auto row = whole.rgb.begin() + (ptrdiff_t(y) * width + left) * 3;
    result.rgb.insert(result.rgb.end(), row, row + ptrdiff_t{3} * model::width);
  }
  return result;
}

// Returns a channel of a pixel in the model's order; the example's images have no alpha.
uint8_t value(const uint8_t* rgb, size_t channel) {
  if (model::channels == "bgr") return rgb[2 - channel];
  return channel < 3 ? rgb[channel] : 255;
}

// Returns the pixels in the model's layout, each of them converted by `convert(value, channel)`.
template <typename Number, typename Convert>
std::vector<Number> input(const Image& image, Convert convert) {
  const size_t pixels = size_t(image.width) * image.height, channels = model::mean.size();
  std::vector<Number> result(channels * pixels);
  for (size_t i = 0; i < pixels; ++i)
    for (size_t channel = 0; channel < channels; ++channel)
      result[model::channels_first ? channel * pixels + i : i * channels + channel] =
          convert(value(&image.rgb[3 * i], channel), channel);
  return result;
}

template <typename Number>
std::vector<float> run(Ort::Session& session, const std::vector<Number>& image) {
  const int64_t channels = model::mean.size(), height = model::height, width = model::width;
  std::vector<int64_t> shape = {model::batch, channels, height, width};
  if (!model::channels_first) shape = {model::batch, height, width, channels};
  std::vector<Number> images;
  for (int64_t i = 0; i < shape[0]; ++i) images.insert(images.end(), image.begin(), image.end());
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  Ort::Value input =
      Ort::Value::CreateTensor<Number>(memory, images.data(), images.size(), shape.data(), shape.size());
  auto outputs = session.Run(Ort::RunOptions{nullptr}, &model::input, &input, 1, &model::output, 1);
  const size_t scores = outputs[0].GetTensorTypeAndShapeInfo().GetElementCount() / shape[0];
  const float* first = outputs[0].GetTensorData<float>();
  return {first, first + scores};
}

int main(int count, char** arguments) try {
  if (count != 3) throw std::runtime_error("usage: predict BUNDLE IMAGE.ppm");
  Ort::Env env(ORT_LOGGING_LEVEL_WARNING, "predict");
  Ort::SessionOptions options;
  for (const auto& [key, value] : model::session_options) options.AddConfigEntry(key.c_str(), value.c_str());
  Ort::Session session(env, (std::string(arguments[1]) + "/" + model::file).c_str(), options);
  Image whole = read_ppm(arguments[2]);
  if (model::channels == "grey") make_grey(whole);
  const Image image = resize_and_crop(whole);
  const auto unchanged = [](uint8_t pixel, size_t) { return pixel; };
  const auto normalized = [](uint8_t pixel, size_t channel) {
    return (pixel / 255.0f - model::mean[channel]) / model::std[channel];
  };
  const std::vector<float> scores = model::takes_pixels ? run(session, input<uint8_t>(image, unchanged))
                                                        : run(session, input<float>(image, normalized));
  size_t best = std::max_element(scores.begin(), scores.end()) - scores.begin();
  if (scores.size() < model::labels.size()) best = scores[0] > model::threshold;  // one score, of the second class
  std::cout << arguments[2] << ": " << model::labels[best] << "\n";
} catch (const std::exception& error) {
  std::cerr << "predict: " << error.what() << "\n";
  return 1;
}
