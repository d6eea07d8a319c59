# offramp for the CPU, without GPU libraries:
#   docker build --tag offramp .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" offramp run my-study.yaml
FROM python:3.11-slim AS build
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:3.11-slim
COPY constraints.txt /tmp/constraints.txt
COPY --from=build /wheels /wheels
# The first index has torch without libraries for GPUs.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch torchvision \
    && pip install --no-cache-dir --constraint /tmp/constraints.txt \
      "$(ls /wheels/offramp-*.whl)[onnx,serve]" \
    && rm -r /wheels /tmp/constraints.txt \
    && useradd offramp && mkdir --mode 1777 /tmp/home
USER offramp
# Where whoever it runs as may write.
ENV HOME=/tmp/home
WORKDIR /work
ENTRYPOINT ["offramp"]
CMD ["--help"]
