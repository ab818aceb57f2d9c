#version 300 es
// The picture as a lens sees it. Light of what lies before a pixel's own surface is scattered over it, as a share of how
// much it covers; the rest is gathered from the surface itself and from what is behind it, never from what is before it:
// a sharp edge keeps its surroundings out, a blurred one spreads over them.
precision highp float;
uniform sampler2D picture;   // sRGB, read as linear light, with coarser levels
uniform sampler2D nearness;  // 1/distance, 0 to 1 between the bounds
uniform sampler2D reach;     // radius of the widest blur that reaches a block of block x block pixels
uniform vec2 size;           // px of the picture, in which all lengths are
uniform vec2 zoom;           // px of the picture for one of the canvas
uniform vec2 bounds;         // 1/m, of the farthest and the nearest
uniform float strength;      // diameter in px of the circle of confusion for a nearness of 1/m off the focus
uniform float focus;         // 1/m
uniform float most;          // px, limit of the diameter
uniform int samples, block;
out vec4 colour;

const float GOLDEN = 2.39996323, PI = 3.14159265;
// Half a pixel of blur apart is another surface.
const float APART = 0.5;
// Samples of the scattered light are denser in the middle: radius = reach * t^DENSITY.
const float DENSITY = 0.75;

float near(vec2 uv) { return mix(bounds.x, bounds.y, textureLod(nearness, uv, 0.0).r); }
float coc(float n) { return clamp(strength * (focus - n), -most, most); }
vec2 spiral(int i) { float a = GOLDEN * float(i); return vec2(cos(a), sin(a)); }
float level(float cell) { return max(0.0, 0.5 * log2(cell) - 0.5); }
// How far q is before a surface of circle c: 0 behind it or on it, 1 clearly before it.
float before(float cq, float c) { return smoothstep(APART, 2.0 * APART, c - cq); }
vec3 encode(vec3 v) { return mix(12.92 * v, 1.055 * pow(max(v, 0.0), vec3(1.0 / 2.4)) - 0.055, step(0.0031308, v)); }

void main() {
  vec2 at = vec2(gl_FragCoord.x * zoom.x, size.y - gl_FragCoord.y * zoom.y), uv = at / size;
  float c = coc(near(uv)), r = 0.5 * abs(c);
  vec3 own = textureLod(picture, uv, 0.0).rgb;
  if (r > 0.5) {
    float area = PI * r * r;
    int n = int(clamp(ceil(area), 12.0, float(samples)));
    float cell = area / float(n), lod = level(cell), total = 0.0;
    vec3 sum = vec3(0.0);
    for (int i = 0; i < n; i++) {
      vec2 q = uv + spiral(i) * r * sqrt((float(i) + 0.5) / float(n)) / size;
      float weight = 1.0 - before(coc(near(q)), c);
      sum += weight * textureLod(picture, q, lod).rgb;
      total += weight;
    }
    // The pixel itself is always on its own surface.
    own = (sum + 1e-3 * own) / (total + 1e-3);
  }
  float R = texelFetch(reach, ivec2(at) / block, 0).r;
  if (R > 0.5) {
    int n = int(clamp(ceil(2.0 * R * R), 16.0, float(samples)));
    float cover = 0.0;
    vec3 sum = vec3(0.0);
    for (int i = 0; i < n; i++) {
      float t = (float(i) + 0.5) / float(n), d = (R + 0.5) * pow(t, DENSITY);
      float cell = 2.0 * PI * DENSITY * (R + 0.5) * (R + 0.5) * pow(t, 2.0 * DENSITY - 1.0) / float(n);
      vec2 q = uv + spiral(i) * d / size;
      float cq = coc(near(q)), rq = max(0.5 * abs(cq), 0.5641896);
      float edge = max(1.0, sqrt(cell));
      float weight = before(cq, c) * cell / (PI * rq * rq) * clamp((rq - d) / edge + 0.5, 0.0, 1.0);
      if (weight > 0.0) {
        sum += weight * textureLod(picture, q, level(cell)).rgb;
        cover += weight;
      }
    }
    if (cover > 0.0) own = mix(own, sum / cover, min(cover, 1.0));
  }
  colour = vec4(encode(own), 1.0);
}
