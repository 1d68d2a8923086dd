# CPU:  docker build --target cpu  -t triptych .
# CUDA: docker build --target cuda -t triptych:cuda .
# Run:  docker run -p 8080:8080 -e TRIPTYCH_API_KEY=... -v triptych-data:/data -v /my/videos:/media:ro triptych

FROM rust:1.95-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-pip && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked && cp target/release/triptych /usr/local/bin/triptych
RUN python3 scripts/fetch_native.py --into /opt/triptych/native

FROM build AS build-cuda
RUN python3 scripts/fetch_native.py --cuda --into /opt/triptych/native

FROM debian:bookworm-slim AS cpu
RUN useradd --system --create-home --home-dir /data triptych
COPY --from=build /usr/local/bin/triptych /usr/local/bin/triptych
COPY --from=build /opt/triptych/native /opt/triptych/native
COPY models /opt/triptych/models
ENV TRIPTYCH_NATIVE_DIR=/opt/triptych/native \
    TRIPTYCH_MODEL=/opt/triptych/models/small-world \
    TRIPTYCH_DATA=/data \
    TRIPTYCH_LISTEN=0.0.0.0:8080 \
    TRIPTYCH_ALLOW_ROOTS=/media
USER triptych
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["triptych"]
CMD ["serve"]

FROM nvidia/cuda:13.0.1-cudnn-runtime-ubuntu24.04 AS cuda
RUN useradd --system --create-home --home-dir /data triptych
COPY --from=build-cuda /usr/local/bin/triptych /usr/local/bin/triptych
COPY --from=build-cuda /opt/triptych/native /opt/triptych/native
COPY models /opt/triptych/models
ENV TRIPTYCH_NATIVE_DIR=/opt/triptych/native \
    TRIPTYCH_MODEL=/opt/triptych/models/small-world \
    TRIPTYCH_DATA=/data \
    TRIPTYCH_LISTEN=0.0.0.0:8080 \
    TRIPTYCH_ALLOW_ROOTS=/media \
    TRIPTYCH_DEVICE=cuda
USER triptych
VOLUME /data
EXPOSE 8080
ENTRYPOINT ["triptych"]
CMD ["serve"]
