# With NVIDIA GPUs: docker build -f docker/cuda.Dockerfile -t selfinstruct:cuda .
# Run:    docker run --rm --gpus all --ipc host -v "$PWD:/work" selfinstruct:cuda run config.yaml
# Change: docker build --build-arg EXTRAS=server,vllm -f docker/cuda.Dockerfile -t selfinstruct:cuda .
# The host needs the driver and the NVIDIA Container Toolkit; CUDA's libraries come with torch.
FROM python:3.12-slim
# Kept in the image: torch and vLLM compile kernels when they run.
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ libc6-dev \
    && rm -rf /var/lib/apt/lists/*
ARG EXTRAS=server
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY configs configs
COPY data data
COPY recipes recipes
COPY selfinstruct_train selfinstruct_train
# vLLM pins a torch of its own, which the versions of constraints.txt would contradict.
RUN case ",$EXTRAS," in *,vllm,*) pinned="" ;; *) pinned="-c constraints.txt" ;; esac \
    && pip install --no-cache-dir $pinned ".[$EXTRAS]" \
    && rm -r /src/*
RUN useradd --create-home --uid 1000 worker && mkdir /work && chown worker /work
USER worker
WORKDIR /work
ENTRYPOINT ["selfinstruct"]
CMD ["--help"]
