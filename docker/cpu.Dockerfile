# Without a GPU: docker build -f docker/cpu.Dockerfile -t selfinstruct:cpu .
# Run:    docker run --rm -v "$PWD:/work" selfinstruct:cpu quickstart
# Change: docker build --build-arg EXTRAS=server,gguf -f docker/cpu.Dockerfile -t selfinstruct:cpu .
FROM python:3.12-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY data data
COPY recipes recipes
COPY selfinstruct_train selfinstruct_train
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.12-slim
ARG EXTRAS=server
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /wheels
# The torch of this index has no CUDA libraries: two gigabytes less.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu \
    -c /tmp/constraints.txt "$(echo /wheels/*.whl)[$EXTRAS]" \
    && rm -r /wheels /tmp/constraints.txt
RUN useradd --create-home --uid 1000 worker && mkdir /work && chown worker /work
USER worker
WORKDIR /work
ENTRYPOINT ["selfinstruct"]
CMD ["--help"]
