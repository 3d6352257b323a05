cwlVersion: "v1.2"
class: "CommandLineTool"
label: "Train a segmentation model"
doc: "Trains a segmentation-models-pytorch model on microscopy images and labels, and exports its best epoch"
baseCommand:
  - "tune-smp"
  - "train"
hints:
  DockerRequirement:
    dockerPull: "tune-smp:0.1.0"
  ResourceRequirement:
    coresMin: 2
    ramMin: 8192
requirements:
  InitialWorkDirRequirement:
    listing:
      - entry: "$(inputs.outputDir)"
        writable: true
  NetworkAccess:
    networkAccess: true
inputs:
  imagesDir:
    type: "Directory"
    doc: "Images folder; its sub-folder images/ is used where there is one."
    inputBinding:
      prefix: "--imagesDir"
  labelsDir:
    type: "Directory"
    doc: "Labels folder; its sub-folder labels/ is used where there is one, else images/."
    inputBinding:
      prefix: "--labelsDir"
  imagesPattern:
    type: "string"
    doc: "File name pattern (filepattern) of the images, such as img_{i:d+}.ome.tif."
    inputBinding:
      prefix: "--imagesPattern"
  labelsPattern:
    type: "string"
    doc: "File name pattern of the labels; shared variables pair images with labels."
    inputBinding:
      prefix: "--labelsPattern"
  segmentationMode:
    type:
      type: "enum"
      symbols:
        - "binary"
        - "multilabel"
        - "multiclass"
    doc: "Meaning of the labels: above 0 is foreground; one channel or file per class; one value per class."
    inputBinding:
      prefix: "--segmentationMode"
  trainFraction:
    type: "double?"
    doc: "Training fraction: share of the images to train on; the others validate. (> 0 and < 1; default: 0.7)"
    inputBinding:
      prefix: "--trainFraction"
  pretrainedModel:
    type: "Directory?"
    doc: "Pretrained model to start from: output folder of a run, or its model/, or of the original WIPP plugin. (default: start from encoderBaseVariantWeights)"
    inputBinding:
      prefix: "--pretrainedModel"
  modelName:
    type:
      - "null"
      - type: "enum"
        symbols:
          - "Unet"
          - "UnetPlusPlus"
          - "MAnet"
          - "Linknet"
          - "FPN"
          - "PSPNet"
          - "PAN"
          - "DeepLabV3"
          - "DeepLabV3Plus"
          - "UPerNet"
          - "Segformer"
          - "DPT"
    doc: "Architecture of the network: what joins the encoder's features into a mask. (default: Unet)"
    inputBinding:
      prefix: "--modelName"
  encoderBaseVariantWeights:
    type: "string?"
    doc: "Encoder as Family,variant,weights; weights may be random. tune-smp show encoders lists all. (default: ResNet,resnet34,imagenet)"
    inputBinding:
      prefix: "--encoderBaseVariantWeights"
  lossName:
    type:
      - "null"
      - type: "enum"
        symbols:
          - "JaccardLoss"
          - "DiceLoss"
          - "TverskyLoss"
          - "FocalLoss"
          - "LovaszLoss"
          - "SoftBCEWithLogitsLoss"
          - "SoftCrossEntropyLoss"
          - "MCCLoss"
          - "DiceCELoss"
          - "DiceFocalLoss"
    doc: "Loss function that training minimizes. (default: JaccardLoss)"
    inputBinding:
      prefix: "--lossName"
  metricName:
    type:
      - "null"
      - type: "enum"
        symbols:
          - "IoU"
          - "Fscore"
          - "Accuracy"
          - "Recall"
          - "Precision"
    doc: "Validation metric that decides which epoch is best. (default: IoU)"
    inputBinding:
      prefix: "--metricName"
  optimizerName:
    type:
      - "null"
      - type: "enum"
        symbols:
          - "Adadelta"
          - "Adagrad"
          - "Adam"
          - "AdamW"
          - "SparseAdam"
          - "Adamax"
          - "ASGD"
          - "LBFGS"
          - "RMSprop"
          - "Rprop"
          - "SGD"
    doc: "Optimizer that updates the weights. (default: Adam)"
    inputBinding:
      prefix: "--optimizerName"
  batchSize:
    type: "int?"
    doc: "Batch size: tiles per step. (>= 1 tiles; default: the largest that fits, measured)"
    inputBinding:
      prefix: "--batchSize"
  maxEpochs:
    type: "int?"
    doc: "Number of epochs to train at most. (>= 1 epochs; default: 100)"
    inputBinding:
      prefix: "--maxEpochs"
  patience:
    type: "int?"
    doc: "Early-stopping patience: epochs without a better validation loss after which training stops. (>= 1 epochs; default: 10)"
    inputBinding:
      prefix: "--patience"
  minDelta:
    type: "double?"
    doc: "Early-stopping threshold: by how much the validation loss must fall to count as better. (>= 0; default: 0.0001)"
    inputBinding:
      prefix: "--minDelta"
  outputDir:
    type: "Directory"
    doc: "Output folder for the model and everything else that is written."
    inputBinding:
      prefix: "--outputDir"
outputs:
  outputDir:
    type: "Directory"
    doc: "Output folder for the model and everything else that is written."
    outputBinding:
      glob: "$(inputs.outputDir.basename)"
