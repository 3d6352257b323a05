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
    doc: "Folder of the images; its sub-folder images/ is used where there is one."
    inputBinding:
      prefix: "--imagesDir"
  labelsDir:
    type: "Directory"
    doc: "Folder of the labels; its sub-folder labels/ is used where there is one, else images/."
    inputBinding:
      prefix: "--labelsDir"
  imagesPattern:
    type: "string"
    doc: "filepattern of the image names, such as img_{i:d+}.ome.tif."
    inputBinding:
      prefix: "--imagesPattern"
  labelsPattern:
    type: "string"
    doc: "filepattern of the label names; shared variables pair images with labels."
    inputBinding:
      prefix: "--labelsPattern"
  segmentationMode:
    type:
      type: "enum"
      symbols:
        - "binary"
        - "multilabel"
        - "multiclass"
    doc: "What labels mean: above 0 is foreground; one channel or file per class; one value per class."
    inputBinding:
      prefix: "--segmentationMode"
  trainFraction:
    type: "double?"
    doc: "Share of the images to train on; the others validate. (> 0 and < 1; default: 0.7)"
    inputBinding:
      prefix: "--trainFraction"
  pretrainedModel:
    type: "Directory?"
    doc: "Output folder of an earlier run, or its model/, or of the original WIPP plugin, to go on from. (default: start from encoderBaseVariantWeights)"
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
    doc: "Architecture of the network. (default: Unet)"
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
    doc: "Loss that training makes smaller. (default: JaccardLoss)"
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
    doc: "Metric on the validation images that decides which epoch is best. (default: IoU)"
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
    doc: "Optimizer that moves the weights. (default: Adam)"
    inputBinding:
      prefix: "--optimizerName"
  batchSize:
    type: "int?"
    doc: "Tiles per step. (>= 1 tiles; default: the largest that fits, measured)"
    inputBinding:
      prefix: "--batchSize"
  maxEpochs:
    type: "int?"
    doc: "Most epochs to train. (>= 1 epochs; default: 100)"
    inputBinding:
      prefix: "--maxEpochs"
  patience:
    type: "int?"
    doc: "Epochs without a better validation loss after which training stops. (>= 1 epochs; default: 10)"
    inputBinding:
      prefix: "--patience"
  minDelta:
    type: "double?"
    doc: "By how much the validation loss must fall to count as better. (>= 0; default: 0.0001)"
    inputBinding:
      prefix: "--minDelta"
  outputDir:
    type: "Directory"
    doc: "Folder for the model and everything else that is written."
    inputBinding:
      prefix: "--outputDir"
outputs:
  outputDir:
    type: "Directory"
    doc: "Folder for the model and everything else that is written."
    outputBinding:
      glob: "$(inputs.outputDir.basename)"
