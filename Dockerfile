# Imagier on CPUs, or on GPUs with --build-arg TORCH_BACKEND=cu130 (docs/install.md).
ARG PYTHON_VERSION=3.12

FROM python:${PYTHON_VERSION}-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY imagier imagier
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /dist .

FROM python:${PYTHON_VERSION}-slim
# What changes most seldom comes first: PyTorch, other packages, Imagier.
ARG TORCH_BACKEND=cpu
ARG EXTRA=demo
ENV PYTHONUNBUFFERED=1 UV_SYSTEM_PYTHON=1 UV_NO_CACHE=1
RUN pip install --no-cache-dir uv==0.13.9
COPY constraints.txt /tmp/
RUN uv pip install --torch-backend "${TORCH_BACKEND}" --constraint /tmp/constraints.txt torch
COPY pyproject.toml /tmp/
RUN uv pip install --torch-backend "${TORCH_BACKEND}" --constraint /tmp/constraints.txt \
    --requirements /tmp/pyproject.toml --extra "${EXTRA}"
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    uv pip install --no-deps /dist/*.whl && useradd --create-home --uid 1000 imagier

USER 1000
WORKDIR /work
ENTRYPOINT ["imagier"]
CMD ["--help"]
