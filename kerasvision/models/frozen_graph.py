"""TensorFlow graphs that hold a model's weights as they were at the first call, made faster for a CPU."""

import hashlib

from kerasvision.ops.winograd import winograd_convolution, winograd_kernel, winograd_tile

# Each takes a second or three to make.
_GRAPHS_OF_ONE_SIZE = 4
# Numbers in a tensor, such as a shape or the biases of a convolution.
_SMALL = 4096


def frozen_graph(function):
    """Compile a function for TensorFlow, with the values that the variables have at the first call.

    All that depends on variables and constants alone, such as kernels with normalisation folded in, is computed once
    instead of at every call. On a CPU, 3x3 convolutions that this makes cheaper get Winograd's form (see
    `kerasvision.ops.winograd`), their kernels transformed beforehand. The first sizes of input get a graph each, for
    which this can be done; one graph serves all other sizes.

    Args:
        function: Takes and returns tensors, or dicts of them.
    """
    import tensorflow as tf

    traced = tf.function(function)
    graphs = {}
    tensors_of = {}  # shared by the graphs of all sizes

    def call(*arguments):
        tensors = tf.nest.flatten(arguments)
        specs = tf.nest.map_structure(lambda tensor: tf.TensorSpec(tensor.shape, tensor.dtype), arguments)
        if str(specs) not in graphs and len(graphs) >= _GRAPHS_OF_ONE_SIZE:
            specs = tf.nest.map_structure(_of_any_size, specs)
        key = str(specs)
        if key not in graphs:
            concrete = traced.get_concrete_function(*specs)
            graphs[key] = _frozen(concrete, tensors_of), concrete.structured_outputs
        graph, structure = graphs[key]
        return tf.nest.pack_sequence_as(structure, tf.nest.flatten(graph(*tensors)))

    return call


def _of_any_size(spec):
    """Leave all but the last axis of a tensor's specification open."""
    return type(spec)([None] * (spec.shape.rank - 1) + spec.shape[-1:], spec.dtype)


def _frozen(concrete, tensors_of):
    """Return a function that does what a concrete function does, with what its inputs do not change as it is now.

    Args:
        concrete: The function.
        tensors_of: {hash of a value, or of one and a tile: tensor}, which is added to.
    """
    import tensorflow as tf

    operations = concrete.graph.get_operations()
    outside = {inner.name: tensor for tensor, inner in concrete.graph.captures}
    fixed = _fixed_operations(operations, outside)
    needed = [tensor for operation in operations if operation.name not in fixed for tensor in operation.inputs]
    known = fixed - {operation.name for operation in operations if operation.type == "Const"}  # these may stay
    names = sorted(
        {
            tensor.name
            for tensor in (*needed, *concrete.outputs)
            if tensor.op.name in known and tensor.name not in outside
        }
    )
    definition = concrete.graph.as_graph_def()
    fixed_part = _without(definition, {operation.name for operation in operations} - fixed)
    hashes, captured = {}, dict(outside)
    for name, tensor in zip(names, _imported(fixed_part, (), outside, names)(), strict=True):
        value = tensor.numpy()
        hashes[name] = hashlib.sha256(f"{value.dtype}{value.shape}".encode() + value.tobytes()).hexdigest()
        captured[name] = tensors_of.setdefault(hashes[name], tensor)
    definition = _without(definition, known)
    if all("CPU" in device.device_type for device in tf.config.list_logical_devices()):
        nodes = {node.name: node for node in definition.node}
        for operation in operations:
            way = _winograd_way(operation) if operation.type == "Conv2D" else None
            if way is not None and (source := operation.inputs[1].name) in hashes:
                tile, options = way
                key = f"{hashes[source]}/winograd{tile}"
                if key not in tensors_of:
                    tensors_of[key] = tf.constant(winograd_kernel(captured[source].numpy(), tile))
                captured[f"{key}:0"] = tensors_of[key]
                _replace(definition, nodes[operation.name], operation.inputs[0], key, tensors_of[key].shape, options)
    inputs = [tensor for tensor in concrete.inputs if tensor.name not in outside]
    return _imported(definition, inputs, captured, [tensor.name for tensor in concrete.outputs])


def _imported(definition, inputs, captured, outputs):
    """Return a function that runs a graph.

    Args:
        definition: Of the graph.
        inputs: The graph's own tensors that are given anew at each call.
        captured: {name: tensor} that are given to it once; more than it needs.
        outputs: Names of what it returns.
    """
    import tensorflow as tf

    used = {name if ":" in name else f"{name}:0" for node in definition.node for name in node.input} | {*outputs}

    def run(*tensors):
        given = {name: _given(tensor) for name, tensor in captured.items() if name in used}
        given |= {inner.name: tensor for inner, tensor in zip(inputs, tensors, strict=True)}
        return tf.import_graph_def(definition, input_map=given, return_elements=outputs, name="")

    return tf.compat.v1.wrap_function(run, [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs])


def _given(tensor):
    """Return a tensor from outside as one of the graph that is being made.

    Small ones become constants, which the optimiser can look into. What a graph captures is not copied into it.
    """
    import tensorflow as tf

    if tensor.dtype != tf.resource and tensor.shape.num_elements() <= _SMALL:
        return tf.constant(tensor.numpy())
    return tf.compat.v1.get_default_graph().capture(tensor)


def _fixed_operations(operations, outside):
    """Return the names of the operations that depend on nothing but constants and what is `outside`."""
    fixed = set()
    for operation in operations:
        if operation.type == "Placeholder":
            is_fixed = operation.outputs[0].name in outside
        else:
            # Random numbers and the like are new at every call; the lists that loops fill have no value to keep.
            has_state = operation.op_def.is_stateful and operation.type != "ReadVariableOp"
            has_value = all(tensor.dtype.name != "variant" for tensor in operation.outputs)
            sources = [tensor.op for tensor in operation.inputs] + operation.control_inputs
            is_fixed = has_value and not has_state and all(source.name in fixed for source in sources)
        if is_fixed:
            fixed.add(operation.name)
    return fixed


def _without(definition, names):
    """Return a graph's definition without the nodes of these names; nothing waits for them any more."""
    part = type(definition)(versions=definition.versions, library=definition.library)
    for node in definition.node:
        if node.name not in names:
            copy = part.node.add()
            copy.CopyFrom(node)
            copy.input[:] = [name for name in node.input if not (name.startswith("^") and name[1:] in names)]
    return part


def _winograd_way(convolution):
    """Return (tile, options) for a convolution that Winograd's form makes cheaper, None for others."""
    features, kernel = convolution.inputs
    dilations = convolution.get_attr("dilations")
    padding = convolution.get_attr("padding").decode().lower()
    if (
        kernel.dtype.name != "float32"
        or tuple(kernel.shape[:2]) != (3, 3)
        or None in (*features.shape, *kernel.shape)
        or kernel.shape[2] != features.shape[-1]  # groups
        or convolution.get_attr("data_format") != b"NHWC"
        or convolution.get_attr("strides") != [1, 1, 1, 1]
        or dilations[1] != dilations[2]
        or padding not in ("same", "valid")
    ):
        return None
    options = {"padding": padding, "dilation": dilations[1]}
    tile = winograd_tile(tuple(features.shape), int(kernel.shape[3]), **options)
    return None if tile is None else (tile, options)


def _replace(definition, node, features, kernel_name, kernel_shape, options):
    """Put Winograd's operations in place of a node of a graph's definition; its name goes on to mean their result."""
    import tensorflow as tf

    graph = tf.Graph()
    with graph.as_default():
        inputs = tf.compat.v1.placeholder(features.dtype, features.shape, name="features")
        kernel = tf.compat.v1.placeholder(features.dtype, kernel_shape, name="kernel")
        tf.identity(winograd_convolution(inputs, kernel, **options), name="outputs")
    names = {"features": node.input[0], "kernel": kernel_name, "outputs": node.name}
    control = [name for name in node.input if name.startswith("^")]

    def renamed(name):
        return names.get(name, f"{names['outputs']}/winograd/{name}")

    definition.node.remove(node)
    for part in graph.as_graph_def().node:
        if part.name not in ("features", "kernel"):
            copy = definition.node.add()
            copy.CopyFrom(part)
            copy.name = renamed(part.name)
            copy.input[:] = [renamed(name) for name in part.input]
            if part.name == "outputs":
                copy.input.extend(control)
