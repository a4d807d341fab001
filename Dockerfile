# edgeprune with CPU-only PyTorch; the folder /data is where models and images are mounted.
#   docker build -t edgeprune .
#   docker run --rm --network none --user "$(id -u):$(id -g)" -v "$PWD:/data" edgeprune compress model.pt2 --calibration images/ -o out
# For two kinds of machines at once: docker buildx build --platform linux/amd64,linux/arm64 -t edgeprune .
FROM python:3.12.11-slim-bookworm AS build
WORKDIR /source
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY targets ./targets
COPY calibration ./calibration
COPY examples/digits ./examples/digits
COPY edgeprune ./edgeprune
RUN python -m venv /opt/edgeprune \
 && /opt/edgeprune/bin/pip install --no-cache-dir --constraint constraints.txt \
      --extra-index-url https://download.pytorch.org/whl/cpu . \
 && /opt/edgeprune/bin/python -c "import torch; assert torch.version.cuda is None, torch.__version__"

FROM python:3.12.11-slim-bookworm
COPY --from=build /opt/edgeprune /opt/edgeprune
RUN useradd --create-home --uid 10001 edgeprune && mkdir /data && chmod 1777 /data
ENV PATH=/opt/edgeprune/bin:$PATH PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /data
ENTRYPOINT ["edgeprune"]
CMD ["--help"]
